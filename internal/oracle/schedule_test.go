package oracle

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestSchedules runs what sessions do at the same time, in every order.
func TestSchedules(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "schedules", func(t *testing.T, path string) {
		t.Parallel()
		name := "schedule_" + strings.TrimSuffix(filepath.Base(path), ".txt")
		newDatabase(t, name)
		(&Schedule{Script: Script{Bed: bed, Database: name, Schema: name}}).Run(t, path)
	})
}
