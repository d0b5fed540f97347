// Package router holds the files that install onelb-router on a virtual machine, so
// that onelbctl can put them into the context of an OpenNebula template.
package router

import "embed"

// Files are install.sh, the settings and the units.
//
//go:embed install.sh onelb-router.env onelb-router.service onelb-router.initd
var Files embed.FS
