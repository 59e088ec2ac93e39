package auth

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const aVerifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="

func TestParseUserList(t *testing.T) {
	users, err := ParseUserList("; comment\n# another\n\n\"app\" \"" + aVerifier + "\"\r\n" +
		"  \"a \"\"b\"\"\"\t\"pass \"\"word\"\"\" ignored\n\"old\" \"md50123456789abcdef0123456789abcdef\"\n\"none\" \"\"\n\"app2\" \"first\"\n\"app2\" \"last\"")
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{
		"app": aVerifier, `a "b"`: `pass "word"`, "old": "md50123456789abcdef0123456789abcdef", "none": "", "app2": "last",
	} {
		if got, ok := users[user]; !ok || got != want {
			t.Errorf("%s: got %q", user, got)
		}
	}
	if len(users) != 5 {
		t.Errorf("got %d users", len(users))
	}
	for text, want := range map[string]string{
		"app secret":       `line 1: it is not "role" "verifier"`,
		"\n\"app\"":        `line 2: it is not "role" "verifier"`,
		`"app" "sec`:       "a quote is not closed",
		`"app`:             "a quote is not closed",
		`"" "x"`:           "has no name",
		"\"a\x00b\" \"x\"": "zero byte",
		`"app" "SCRAM-SHA-256$4096:c2FsdA==$x:y"`: "its verifier is not",
		`"` + strings.Repeat("x", 64) + `" "x"`:   "more than 63 bytes",
	} {
		_, err := ParseUserList(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", text, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "c2Fs")) {
			t.Errorf("%q: the error tells a secret: %v", text, err)
		}
	}
}

func FuzzParseUserList(f *testing.F) {
	f.Add("\"a\" \"b\"\n;\n\"c\" \"" + aVerifier + "\"")
	f.Fuzz(func(t *testing.T, text string) {
		users, err := ParseUserList(text)
		if err != nil {
			return
		}
		var again strings.Builder
		quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
		for user, stored := range users {
			again.WriteString(quote(user) + " " + quote(stored) + "\n")
		}
		second, err := ParseUserList(again.String())
		if err != nil || len(second) != len(users) {
			t.Fatalf("%q: written again it is %q: %v", text, again.String(), err)
		}
		for user, stored := range users {
			if second[user] != stored {
				t.Fatalf("%q: role %q has %q, then %q", text, user, stored, second[user])
			}
		}
	})
}

func TestIdent(t *testing.T) {
	maps, err := parseIdent("# map name role\npeople alice@example.com alice\npeople /^(.*)@example\\.com$ \\1_x\npeople \"Bob B\" bob\nother /^ops- admin\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, mapName, role string
		want                bool
	}{
		{"alice", "", "alice", true},
		{"alice", "", "bob", false},
		{"Alice", "", "alice", false},
		{"alice@example.com", "people", "alice", true},
		{"alice@example.com", "people", "alice_x", true},
		{"alice@example.com", "people", "bob", false},
		{"alice@example.org", "people", "alice_x", false},
		{"Bob B", "people", "bob", true},
		{"bob", "people", "bob", false},
		{"ops-1", "other", "admin", true},
		{"dev-ops-1", "other", "admin", false},
		{"alice", "missing", "alice", false},
	} {
		if got := maps.admits(tc.name, tc.mapName, tc.role); got != tc.want {
			t.Errorf("%+v: got %v", tc, got)
		}
	}
	for text, want := range map[string]string{
		"m a": "2 fields", "m a b c": "4 fields", "m a,b c": "cannot be a list", `m /( c`: "regular expression", `m /a \1`: "no parentheses", `m /\ba c`: "not supported",
	} {
		if _, err := parseIdent(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func FuzzParseIdent(f *testing.F) {
	f.Add("m /^(.*)$ \\1\nm \"a b\" c", "x")
	f.Fuzz(func(t *testing.T, text, name string) {
		maps, err := parseIdent(text)
		if err != nil {
			return
		}
		for mapName := range maps {
			maps.admits(name, mapName, "role")
		}
	})
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Each file that cannot be used is told of; rules that do not go with the rest are not taken.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	config := Config{HBAFile: filepath.Join(dir, "hba"), UserFile: filepath.Join(dir, "users"), IdentFile: filepath.Join(dir, "ident")}
	wantFaults := func(faults ...string) {
		t.Helper()
		p, err := Load(config)
		if err == nil || p != nil {
			t.Fatal("it was taken")
		}
		for _, fault := range faults {
			if !strings.Contains(err.Error(), fault) {
				t.Errorf("got %v, want %s", err, fault)
			}
		}
	}
	wantFaults("read rules "+config.HBAFile, "read name maps "+config.IdentFile, "read users "+config.UserFile)
	write(t, config.HBAFile, "host all all all trust")
	write(t, config.UserFile, `"a" "1"`)
	write(t, config.IdentFile, "m a b")
	p, err := Load(config)
	if err != nil {
		t.Fatal(err)
	}
	if stored, _ := p.Stored("a"); stored != "1" || p.rules[0].Method != Trust || len(p.maps) != 1 {
		t.Fatalf("got %q %v %v", stored, p.rules, p.maps)
	}
	write(t, config.UserFile, `"a" "2`)
	write(t, config.HBAFile, "host all")
	wantFaults("read users "+config.UserFile+": line 1", "read rules "+config.HBAFile+": line 1")
	write(t, config.UserFile, "")
	write(t, config.HBAFile, "\nhostssl all all all cert")
	wantFaults("rule in line 2", "tls.client_ca")
}

func TestConfigFaults(t *testing.T) {
	for want, config := range map[string]Config{
		"needs tls.cert":     {TLS: TLS{Mode: TLSRequire}},
		"go together":        {TLS: TLS{Cert: "c"}},
		"is none of disable": {TLS: TLS{Mode: "prefer"}},
		"read certificate":   {TLS: TLS{Cert: "/nonexistent", Key: "/nonexistent"}},
		"must not be":        {Failures: FailureLimits{Lockout: -1}},
		"method":             {Rules: []Rule{{Method: "ldap"}}},
		"rule 2: map":        {Rules: []Rule{{Method: Trust}, {Transport: OnlyTLS, Method: ScramSHA256, Map: "m"}}},
	} {
		_, err := Load(config)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
