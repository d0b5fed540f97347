package main

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// TestModulesOfThisTest: its own binary is one with modules.
func TestModulesOfThisTest(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := run(&first, self, "v1"); err != nil {
		t.Fatal(err)
	}
	if err := run(&second, self, "v1"); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("%v, or another text the second time", err)
	}
	var d document
	if err := json.Unmarshal(first.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.Format != "CycloneDX" || d.Metadata.Component.Version != "v1" || !slices.ContainsFunc(d.Components, func(c component) bool { return c.Name == "std" && c.Version != "" }) {
		t.Errorf("%+v", d)
	}
}

func TestWhatIsNoProgram(t *testing.T) {
	if err := run(&bytes.Buffer{}, "main.go", ""); err == nil {
		t.Error("accepted")
	}
}
