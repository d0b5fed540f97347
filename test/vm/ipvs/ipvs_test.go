package ipvs_test

import (
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab/labtest"
	"github.com/onelb/onelb/test/vm"
)

const patience = 10 * time.Minute

func TestIPVS(t *testing.T) {
	if !vm.Inside() {
		t.Skip("this is for the virtual machine, see TestInMachine")
	}
	l := labtest.Shared(t)
	if err := l.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}
