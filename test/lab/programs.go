package lab

import (
	"context"

	"github.com/onelb/onelb/test/lab/kubebin"
)

// Router is an instance of the virtual router.
type Router struct {
	*Host
	lab   *Lab
	index int // from 1
}

// buildPrograms builds what the lab runs from this module.
func (l *Lab) buildPrograms(ctx context.Context) error {
	return kubebin.Programs(ctx, l.path("bin"), false, l.options.Progress, "test/lab/cmd/labpod")
}

// program is the path of a program of this module.
func (l *Lab) program(name string) string { return l.path("bin", name) }
