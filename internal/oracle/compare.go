package oracle

import (
	"fmt"
	"slices"
	"strings"
)

// Verdict is what a comparison came to.
type Verdict struct {
	// Refused is the router's refusal, "" if it answered.
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

// compare judges the cluster's outcome by the plain server's.
func compare(plain, cluster Outcome, ordered bool) Verdict {
	v := Verdict{Plain: plain, Cluster: cluster}
	plainCode, clusterCode := codeOf(plain), codeOf(cluster)
	switch {
	case clusterCode == featureNotSupported && plainCode != featureNotSupported:
		v.Refused = cluster.Err.Message
		return v
	case plainCode != clusterCode:
		v.Difference = fmt.Sprintf("plain says %s, cluster says %s", describe(plain), describe(cluster))
		return v
	case plainCode != "":
		return v
	case !slices.Equal(plain.Columns, cluster.Columns):
		v.Difference = fmt.Sprintf("columns: plain %q, cluster %q", plain.Columns, cluster.Columns)
		return v
	case !slices.Equal(plain.Tags, cluster.Tags):
		v.Difference = fmt.Sprintf("tags: plain %q, cluster %q", plain.Tags, cluster.Tags)
		return v
	}
	v.Difference = compareRows(plain.Rows, cluster.Rows, ordered)
	return v
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
