package bench

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// Row is one line of bench.json. Figures are in Unit.
type Row struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	N      int     `json:"n"`
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	P95    float64 `json:"p95"`
	Max    float64 `json:"max"`
	Note   string  `json:"note"`
}

// newRow summarises samples, of which there is at least one.
func newRow(name, unit string, samples []float64, notes []string) Row {
	s := slices.Sorted(slices.Values(samples))
	return Row{
		Name: name, Unit: unit, N: len(s),
		Min: round(s[0]), Median: round(median(s)), P95: round(quantile(s, 0.95)), Max: round(s[len(s)-1]),
		Note: strings.Join(notes, "; "),
	}
}

// median of sorted samples; between two, their mean.
func median(s []float64) float64 {
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// quantile is the smallest sample that at least the share q does not exceed:
// with few samples, p95 is the largest.
func quantile(s []float64, q float64) float64 {
	return s[max(int(math.Ceil(q*float64(len(s))))-1, 0)]
}

// round keeps three decimals: what is beyond is noise.
func round(x float64) float64 { return math.Round(x*1000) / 1000 }

// ms is a duration in milliseconds.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// String is for people.
func (r Row) String() string {
	return fmt.Sprintf("%-34s n=%-4d min %g, median %g, p95 %g, max %g %s", r.Name, r.N, r.Min, r.Median, r.P95, r.Max, r.Unit)
}

// Write writes rows to a file as JSON, sorted by name.
func Write(file string, rows []Row) error {
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b Row) int { return strings.Compare(a.Name, b.Name) })
	if rows == nil {
		rows = []Row{}
	}
	data, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("encode rows: %w", err)
	}
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write rows: %w", err)
	}
	return nil
}
