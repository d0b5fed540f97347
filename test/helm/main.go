// Command helm renders a chart as `helm template` does, with the library of Helm,
// so that tests need no other program: helm [-f values.yaml]... [-n namespace] CHART.
// Values are checked against the chart's schema. The CRDs come first, then the
// templates, by name; an empty one is left out.
package main

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

func main() {
	var values []string
	flag.Func("f", "file with values; later ones win", func(s string) error { values = append(values, s); return nil })
	namespace := flag.String("n", "onelb-system", "namespace of the release")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := render(os.Stdout, flag.Arg(0), *namespace, values); err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
		os.Exit(1)
	}
}

func render(w io.Writer, dir, namespace string, files []string) error {
	c, err := loader.Load(dir)
	if err != nil {
		return fmt.Errorf("load chart %s: %w", dir, err)
	}
	values := chartutil.Values{}
	for _, f := range files {
		more, err := chartutil.ReadValuesFile(f)
		if err != nil {
			return fmt.Errorf("values %s: %w", f, err)
		}
		values = chartutil.CoalesceTables(more, values)
	}
	release := chartutil.ReleaseOptions{Name: "onelb", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, release, chartutil.DefaultCapabilities)
	if err != nil {
		return fmt.Errorf("values: %w", err)
	}
	out, err := engine.Engine{Strict: true}.Render(c, all)
	if err != nil {
		return fmt.Errorf("render: %w", err)
	}
	for _, crd := range c.CRDObjects() {
		if _, err := fmt.Fprintf(w, "---\n%s\n", crd.File.Data); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(out)) {
		if path.Ext(name) != ".yaml" || strings.TrimSpace(out[name]) == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "---\n%s\n", out[name]); err != nil {
			return err
		}
	}
	return nil
}
