// Package lifecycle installs, examines, fills from other load balancers, upgrades
// and uninstalls onelb in one lab, with the commands that the documentation gives.
package lifecycle
