package lab_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
)

// childVariable makes the test binary a process that brings up a lab of this
// name, says so, and waits to be killed.
const childVariable = "ONELB_TEST_LAB_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		os.Exit(child(name))
	}
	os.Exit(labtest.Run(m, lab.Options{Name: "labtest"}))
}

func child(name string) int {
	l, err := lab.New(lab.Options{Name: name, Nodes: 1})
	if err == nil {
		err = l.Start(context.Background())
	}
	if err == nil {
		_, err = l.StartWorkload(context.Background(), lab.Workload{Name: "left"})
	}
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	fmt.Println("up")
	select {}
}
