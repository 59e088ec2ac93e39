package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asCommand in the environment makes the test binary the shardyard command: tests that send signals start it as a process.
const asCommand = "SHARDYARD_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		_ = os.Unsetenv(asCommand) // it is no key of the configuration
		main()
		return
	}
	goleak.VerifyTestMain(m)
}
