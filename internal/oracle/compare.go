package oracle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Verdict is what a comparison came to.
type Verdict struct {
	// Refused is the router's refusal, "" if it answered. The plain server was not asked then.
	Refused string
	// Difference tells the first thing that differs, "" if nothing does.
	Difference string
	// Plain and Cluster are the two outcomes.
	Plain, Cluster Outcome
}

// String is "agree, 3 rows", "agree, error 22P02", "refused: …" or "DIFFER: …".
func (v Verdict) String() string {
	switch {
	case v.Difference != "":
		return "DIFFER: " + v.Difference
	case v.Refused != "":
		return "refused: " + v.Refused
	case v.Plain.Err != nil:
		return "agree, error " + v.Plain.Err.Code
	case len(v.Plain.Columns) == 0:
		return "agree, " + strings.Join(v.Plain.Tags, "; ")
	case len(v.Plain.Rows) == 1:
		return "agree, 1 row"
	}
	return fmt.Sprintf("agree, %d rows", len(v.Plain.Rows))
}

const featureNotSupported = "0A000"

// refusal is the router's own 0A000. One that a Postgres raised names the routine that did.
func refusal(cluster Outcome) (message string, refused bool) {
	if cluster.Err == nil || cluster.Err.Code != featureNotSupported || cluster.Err.Routine != "" {
		return "", false
	}
	return cluster.Err.Message, true
}

// compare judges the cluster's outcome by the plain server's.
func compare(plain, cluster Outcome, st Statement) Verdict {
	v := Verdict{Plain: plain, Cluster: cluster}
	switch {
	case codeOf(plain) != codeOf(cluster):
		v.Difference = fmt.Sprintf("plain says %s, cluster says %s", describe(plain), describe(cluster))
	case plain.Status != cluster.Status:
		v.Difference = fmt.Sprintf("transaction status: plain %c, cluster %c", plain.Status, cluster.Status)
	case plain.Err != nil:
		if !st.AnyMessage {
			v.Difference = compareErrors(plain.Err, cluster.Err)
		}
	case !slices.Equal(plain.Parameters, cluster.Parameters):
		v.Difference = fmt.Sprintf("parameters: plain %q, cluster %q", plain.Parameters, cluster.Parameters)
	case !slices.Equal(plain.Columns, cluster.Columns):
		v.Difference = fmt.Sprintf("columns: plain %q, cluster %q", plain.Columns, cluster.Columns)
	case !sameOrigins(plain.Origins, cluster.Origins):
		v.Difference = fmt.Sprintf("origins: plain %q, cluster %q", plain.Origins, cluster.Origins)
	case !slices.Equal(plain.Tags, cluster.Tags):
		v.Difference = fmt.Sprintf("tags: plain %q, cluster %q (%d and %d rows)", plain.Tags, cluster.Tags, len(plain.Rows), len(cluster.Rows))
	case !slices.Equal(plain.Notices, cluster.Notices):
		v.Difference = fmt.Sprintf("notices: plain %q, cluster %q", plain.Notices, cluster.Notices)
	default:
		v.Difference = compareRows(plain.Rows, cluster.Rows, st.Ordered)
	}
	return v
}

// sameOrigins lets the router leave an origin open, which it does for rows of several tables that are
// not read on the home shard; a wrong one is a difference.
func sameOrigins(plain, cluster []string) bool {
	return slices.EqualFunc(plain, cluster, func(p, c string) bool { return p == c || c == "-" })
}

// compareErrors compares the fields that a client acts on or shows.
func compareErrors(plain, cluster *pgconn.PgError) string {
	fields := func(e *pgconn.PgError) []string {
		return []string{
			e.SeverityUnlocalized, e.Message, e.Detail, e.Hint, fmt.Sprint(e.Position), e.Where,
			e.SchemaName, e.TableName, e.ColumnName, e.DataTypeName, e.ConstraintName,
		}
	}
	if p, c := fields(plain), fields(cluster); !slices.Equal(p, c) {
		return fmt.Sprintf("error %s: plain %q, cluster %q", plain.Code, p, c)
	}
	return ""
}

func compareRows(plain, cluster [][]string, ordered bool) string {
	plainLines, clusterLines := lines(plain), lines(cluster)
	if !ordered {
		slices.Sort(plainLines)
		slices.Sort(clusterLines)
	}
	for i := range max(len(plainLines), len(clusterLines)) {
		switch {
		case i >= len(plainLines):
			return fmt.Sprintf("%d rows instead of %d; the first too many: %s", len(clusterLines), len(plainLines), clusterLines[i])
		case i >= len(clusterLines):
			return fmt.Sprintf("%d rows instead of %d; the first missing: %s", len(clusterLines), len(plainLines), plainLines[i])
		case plainLines[i] != clusterLines[i]:
			return fmt.Sprintf("row %d: plain %s, cluster %s (%d and %d rows)", i+1, plainLines[i], clusterLines[i], len(plainLines), len(clusterLines))
		}
	}
	return ""
}

// compareCut judges the answer to a statement with LIMIT and no order that fixes its rows: the
// count is fixed, and that the rows are among those of the same statement without LIMIT.
func compareCut(plain, cluster, whole Outcome) Verdict {
	counted := cluster
	counted.Rows = plain.Rows
	v := compare(plain, counted, Statement{Ordered: true})
	v.Cluster = cluster
	if v.Difference != "" || plain.Err != nil {
		return v
	}
	if len(plain.Rows) != len(cluster.Rows) {
		v.Difference = fmt.Sprintf("%d rows instead of %d", len(cluster.Rows), len(plain.Rows))
		return v
	}
	left := map[string]int{}
	for _, line := range lines(whole.Rows) {
		left[line]++
	}
	for _, line := range lines(cluster.Rows) {
		if left[line]--; left[line] < 0 {
			v.Difference = "a row that is not among those without LIMIT, or too often: " + line
			return v
		}
	}
	return v
}

func lines(rows [][]string) []string {
	result := make([]string, len(rows))
	for i, row := range rows {
		result[i] = fmt.Sprintf("%q", row)
	}
	return result
}

func codeOf(o Outcome) string {
	if o.Err == nil {
		return ""
	}
	return o.Err.Code
}

func describe(o Outcome) string {
	if o.Err == nil {
		return fmt.Sprintf("%d rows %q", len(o.Rows), o.Tags)
	}
	return fmt.Sprintf("%s %q", o.Err.Code, o.Err.Message)
}
