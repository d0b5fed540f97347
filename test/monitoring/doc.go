// Package monitoring tests the files in manifests/monitoring: that Prometheus
// takes them, that each metric and label in them is one that the programs have, and
// that the alerts fire when they should.
package monitoring
