package main

import (
	"fmt"
	"os"
	"testing"
)

// TestMain lets the test program be the process of idle clients, as the bench itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == connectCommand {
		if err := runConnector(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
