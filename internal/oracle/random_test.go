package oracle

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
)

var (
	seedFlag  = flag.Uint64("oracle.seed", 0, "seed of the random statements; 0 takes a new one")
	countFlag = flag.Int("oracle.statements", 400, "number of random statements")
)

// generatedSchema holds the tables of the random statements.
const generatedSchema = "case_generated"

// setUpGenerated makes and fills the tables of the random statements in the session's schema.
func setUpGenerated(t *testing.T, session *Session) {
	t.Helper()
	for _, sql := range generatedSetup.both {
		if err := session.Both(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range generatedSetup.cluster {
		if err := session.Cluster(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range generatedRows() {
		if err := session.Both(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

func (g generated) ask(ctx context.Context, s *Session, mode Mode) (Verdict, error) {
	if g.whole != nil {
		return s.AskCut(ctx, g.statement, *g.whole, mode)
	}
	return s.Ask(ctx, g.statement, mode)
}

func (g generated) String() string {
	text := fmt.Sprintf("%s\narguments %+v, ordered %t", g.statement.SQL, g.statement.Args, g.statement.Ordered)
	if g.whole != nil {
		text += "\nof " + g.whole.SQL
	}
	return text
}

func TestRandomStatements(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (-oracle.seed=%d repeats it)", seed, seed)
	session := newSession(t, generatedSchema)
	setUpGenerated(t, session)
	g := newGenerator(seed)
	answered, refused := 0, 0
	for i := range *countFlag {
		statement := g.next()
		for _, mode := range Modes {
			verdict, err := statement.ask(t.Context(), session, mode)
			if err != nil {
				t.Fatalf("statement %d, %s: %v\n%s", i, mode, err, statement)
			}
			switch {
			case verdict.Difference != "":
				t.Errorf("statement %d, %s: %s\n%s", i, mode, verdict, statement)
			case verdict.Refused != "":
				refused++
			case verdict.Plain.Err == nil:
				answered++
			}
		}
	}
	t.Logf("%d answers, %d refusals", answered, refused)
	if answered < *countFlag {
		t.Errorf("only %d of %d were answered: this proves little", answered, 3**countFlag)
	}
	if err := bed.CompareContents(t.Context(), database, generatedSchema); err != nil {
		t.Error(err)
	}
}
