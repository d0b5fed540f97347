//go:build !race

package bgp

const atOnce = 3 // see race_test.go
