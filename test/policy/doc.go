// Package policy holds the rules of this repository as tests: who may import
// whom, how sources and texts look, and what the manifests may ask of a cluster.
//
// It has no code besides its tests, needs no root and changes nothing. Each
// failure names the file, the rule and the reason for the rule; a rule that
// stands in the way of something good is changed here, with the reason.
package policy
