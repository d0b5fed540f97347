// Package provider is the cloud provider "opennebula": it reads the cloud-config
// file, connects OpenNebula, IPAM, load balancer and instances, and offers them
// to the controllers of k8s.io/cloud-provider.
//
// Start. Nothing here waits for OpenNebula or the API server: wrong credentials
// or an unreachable front-end are reported and tried again, while what is
// running goes on. What the parts need from the cluster (its identity, a
// fencing token) is fetched with retries before they begin.
package provider
