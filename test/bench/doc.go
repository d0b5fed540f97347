// Package bench measures onelb in the lab, with real parts, and gives each
// figure as a row of bench.json.
//
// A measurement makes one or several rows. Run does those whose rows match, one
// after the other, each with the lab it needs; a measurement that fails, or
// leaves a row without a figure, makes Run return an error, together with the
// rows that there are. The lab's hosts share the machine with the measuring
// program: figures are compared within one run, and each row says how loaded
// the machine was.
//
// docs/reference/benchmarks.md says how each row is measured.
package bench
