package router

import (
	"fmt"
	"testing"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/pgerr"
)

// What the planner and the sharding statements say reaches the client with all of its fields.
func TestRefusalsKeepTheirFields(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		&planner.Error{Code: "0A000", Message: "no", Detail: "because", Hint: "do this", Position: 7},
		fmt.Errorf("plan: %w", &planner.Error{Code: "0A000", Message: "no", Detail: "because", Hint: "do this", Position: 7}),
		&shardsql.Error{Code: "0A000", Message: "no", Hint: "do this", Position: 7},
	} {
		got := pgerr.Of(err)
		if got.Code != "0A000" || got.Message != "no" || got.Hint != "do this" || got.Position != 7 {
			t.Errorf("%T: got %+v", err, got)
		}
	}
	if got := pgerr.Of(&planner.Error{Code: "0A000", Message: "no", Detail: "because"}); got.Detail != "because" {
		t.Errorf("got %+v", got)
	}
}
