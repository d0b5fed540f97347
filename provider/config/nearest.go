package config

import (
	"fmt"
	"strings"
)

// unknown is the message for a key that does not exist, with the one that was
// probably meant, or else all.
func unknown(key string, fields []field) string {
	best, distance := "", 1+len(key)/2
	for _, f := range fields {
		if d := editDistance(strings.ToLower(key), strings.ToLower(f.key)); d < distance {
			best, distance = f.key, d
		}
	}
	if best != "" {
		return fmt.Sprintf("unknown key %.40q; did you mean %q?", key, best)
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.key
	}
	return fmt.Sprintf("unknown key %.40q; known are %s", key, strings.Join(names, ", "))
}

// editDistance counts the single-byte changes that make b of a (Levenshtein).
// Keys are short: b is a known key, a is cut.
func editDistance(a, b string) int {
	a = a[:min(len(a), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
