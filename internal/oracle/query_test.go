package oracle

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
)

var queriesFlag = flag.Int("oracle.queries", 150, "number of random queries over several tables")

// Random queries of every shape are answered as by one Postgres, or refused.
func TestRandomQueries(t *testing.T) {
	t.Parallel()
	const schema = "random_queries"
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (-oracle.seed=%d repeats it)", seed, seed)
	session := newSession(t, schema)
	setUpGenerated(t, session)
	for _, sql := range querySetup.both {
		if err := session.Both(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range querySetup.cluster {
		if err := session.Cluster(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range querySetup.rows {
		if err := session.Both(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	g := newQueryGenerator(seed)
	answered, failed := 0, 0
	refused := make(map[string]int)
	for i := range *queriesFlag {
		statement, mode := g.next(), Modes[g.random.IntN(len(Modes))]
		verdict, err := session.Ask(t.Context(), statement, mode)
		if err != nil {
			t.Fatalf("query %d, %s: %v\n%s", i, mode, err, statement.SQL)
		}
		switch {
		case verdict.Difference != "":
			t.Errorf("query %d, %s: %s\n%s\narguments %+v", i, mode, verdict, statement.SQL, statement.Args)
		case verdict.Refused != "":
			refused[verdict.Refused]++
		case verdict.Plain.Err == nil:
			answered++
		default:
			failed++
		}
	}
	t.Logf("%d answers, %d errors that are Postgres's own, refused: %v", answered, failed, refused)
	var features []string
	for feature, n := range g.features {
		features = append(features, feature)
		if n == 0 {
			t.Errorf("no %s", feature)
		}
	}
	slices.Sort(features)
	for _, feature := range features {
		t.Logf("%s: %d", feature, g.features[feature])
	}
	if answered < *queriesFlag*2/3 {
		t.Errorf("only %d of %d were answered: this proves little", answered, *queriesFlag)
	}
}
