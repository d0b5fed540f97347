package provider

import (
	"io"
	"testing"

	"github.com/spf13/pflag"
)

func TestOrphansFlag(t *testing.T) {
	for arg, want := range map[string]Orphans{"": OrphansRelease, "--orphans=report": OrphansReport, "--orphans=release": OrphansRelease, "--orphans=keep": ""} {
		var o Options
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		fs.SetOutput(io.Discard)
		o.AddFlags(fs)
		var args []string
		if arg != "" {
			args = []string{arg}
		}
		err := fs.Parse(args)
		if (err != nil) != (want == "") || err == nil && o.Orphans != want {
			t.Errorf("%q: %q, %v", arg, o.Orphans, err)
		}
	}
}
