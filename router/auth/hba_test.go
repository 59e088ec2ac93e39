package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// The cases of testdata/hba.txt: "parse" prints the rules of a file, "match" which of them decides for clients.
func TestHBA(t *testing.T) {
	var policy Policy
	datadriven.RunTest(t, "testdata/hba.txt", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "parse":
			rules, err := ParseHBA(strings.ReplaceAll(d.Input, "␀", "\x00"))
			if err != nil {
				return err.Error() + "\n"
			}
			policy.rules = rules
			var b strings.Builder
			for _, r := range rules {
				b.WriteString(printRule(r) + "\n")
			}
			return b.String()
		case "match":
			var b strings.Builder
			for line := range strings.Lines(d.Input) {
				f := strings.Fields(line)
				rule, err := policy.Rule(Client{TLS: f[0] == "tls", Database: f[1], User: f[2], Address: netip.MustParseAddr(f[3])})
				if err != nil {
					fmt.Fprintln(&b, err)
				} else {
					fmt.Fprintf(&b, "line %d: %s\n", rule.line, rule.Method)
				}
			}
			return b.String()
		}
		t.Fatalf("unknown command %s", d.Cmd)
		return ""
	})
}

func printRule(r Rule) string {
	text := fmt.Sprintf("%d: %s databases=%q users=%q networks=%v %s", r.line,
		[]string{"host", "hostssl", "hostnossl"}[r.Transport], r.Databases, r.Users, r.Networks, r.Method)
	if r.SameUser {
		text += " sameuser"
	}
	if r.ClientCert != NoCert {
		text += " clientcert=" + string(r.ClientCert)
	}
	if r.Map != "" {
		text += " map=" + r.Map
	}
	return text
}

// Whatever the file says, rules that are read are valid, and each line is read alone.
func FuzzParseHBA(f *testing.F) {
	for _, seed := range []string{
		"host all all all trust", "hostssl \"a b\",c +d ::1/64 cert map=m clientcert=verify-full # x",
		"hostnossl sameuser,\"all\" all 10.0.0.1 255.0.0.0 md5", "local all all peer", "host all \\\n all 0.0.0.0/0 reject", "\"\"\"", "host a,,b,",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := ParseHBA(text)
		if err != nil {
			return
		}
		for i := range rules {
			if err := rules[i].validate(); err != nil {
				t.Fatalf("rule %d: %v", i, err)
			}
			for _, network := range rules[i].Networks {
				if !network.IsValid() {
					t.Fatalf("rule %d: network %v", i, network)
				}
			}
		}
		again, err := ParseHBA(text + "\nhost last last 10.0.0.0/8 trust")
		if err != nil || len(again) != len(rules)+1 {
			t.Fatalf("one line more makes %d rules out of %d: %v", len(again), len(rules), err)
		}
		p := Policy{rules: rules}
		_, _ = p.Rule(Client{Database: "d", User: "u", Address: netip.MustParseAddr("10.1.2.3")})
	})
}
