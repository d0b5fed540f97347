package main

import (
	"strings"

	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/offer"
)

// row writes one line of a Markdown table.
func row(cells ...string) string {
	escaped := make([]string, len(cells))
	for i, cell := range cells {
		cell = strings.Join(strings.Fields(cell), " ")
		escaped[i] = strings.ReplaceAll(cell, "|", `\|`)
	}
	return "| " + strings.Join(escaped, " | ") + " |\n"
}

// table writes a Markdown table; rows come from row.
func table(rows []string, head ...string) string {
	return row(head...) + "|" + strings.Repeat("---|", len(head)) + "\n" + strings.Join(rows, "")
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func annotations(string) (string, error) {
	var rows []string
	for _, key := range annotation.All() {
		rows = append(rows, row(code(key.Name), key.Value, key.Meaning))
	}
	return table(rows, "annotation", "value", "meaning"), nil
}

// settings lists the attributes with which a network shapes the pool that it offers.
func settings(string) (string, error) {
	var rows []string
	for _, s := range offer.Settings() {
		rows = append(rows, row(code(s.Name), s.Value, s.Meaning))
	}
	return table(rows, "attribute", "value", "what it sets"), nil
}
