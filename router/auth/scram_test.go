package auth

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/shardyard/shardyard/router/pgerr"
)

const thePassword = "pencil"

// storedVerifier is what Postgres would keep of a password.
func storedVerifier(t testing.TB, password string) string {
	t.Helper()
	keys, err := derive(password, scram.KeyFactors{Salt: "0123456789abcdef", Iters: iterations})
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	return scramPrefix + "4096:" + b64([]byte(keys.Salt)) + "$" + b64(keys.StoredKey) + ":" + b64(keys.ServerKey)
}

func parsed(t testing.TB, text string) Verifier {
	t.Helper()
	v, err := ParseVerifier(text, true)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// client is a client's side of an exchange: its first message, and its answer to the challenge.
type client struct {
	*scram.ClientConversation
}

func newClient(t testing.TB, password string, bind func(*scram.Client) *scram.ClientConversation) client {
	t.Helper()
	c, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		t.Fatal(err)
	}
	if bind == nil {
		return client{c.NewConversation()}
	}
	return client{bind(c)}
}

func bindTo(data string) func(*scram.Client) *scram.ClientConversation {
	return func(c *scram.Client) *scram.ClientConversation {
		return c.NewConversationWithChannelBinding(scram.ChannelBinding{Type: bindingType, Data: []byte(data)})
	}
}

func advertising(c *scram.Client) *scram.ClientConversation {
	return c.NewConversationAdvertisingChannelBinding()
}

// run runs an exchange to its end.
func run(t testing.TB, v Verifier, binding []byte, mechanism string, c client) (*Keys, error) {
	t.Helper()
	x, err := NewSCRAM(v, "u", Secret{}, binding)
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Step("")
	if err != nil {
		t.Fatal(err)
	}
	challenge, err := x.Begin(mechanism, []byte(first))
	if err != nil {
		return nil, err
	}
	proof, err := c.Step(string(challenge))
	if err != nil {
		t.Fatal(err)
	}
	answer, keys, err := x.Finish([]byte(proof))
	if err != nil {
		return nil, err
	}
	if _, err := c.Step(string(answer)); err != nil || !c.Valid() {
		t.Fatalf("the client does not believe the server: %v", err)
	}
	return keys, nil
}

func TestSCRAM(t *testing.T) {
	verifier := parsed(t, storedVerifier(t, thePassword))
	channel := []byte("end point")
	for _, tc := range []struct {
		name, password string
		verifier       Verifier
		binding        []byte
		mechanism      string
		client         func(*scram.Client) *scram.ClientConversation
		want           string // SQLSTATE, or "password", or ""
	}{
		{"plain", thePassword, verifier, nil, mechanism, nil, ""},
		{"wrong password", "pen", verifier, nil, mechanism, nil, "password"},
		{"no verifier", thePassword, Verifier{}, nil, mechanism, nil, "password"},
		{"only md5", thePassword, Verifier{md5: "md5"}, nil, mechanism, nil, "password"},
		{"password known", thePassword, Verifier{password: thePassword}, nil, mechanism, nil, ""},
		{"password known, wrong", "pen", Verifier{password: thePassword}, nil, mechanism, nil, "password"},
		{"bound", thePassword, verifier, channel, mechanismBound, bindTo("end point"), ""},
		{"bound, wrong password", "pen", verifier, channel, mechanismBound, bindTo("end point"), "password"},
		{"bound to another channel", thePassword, verifier, channel, mechanismBound, bindTo("man in the middle"), "28000"},
		{"not bound though possible", thePassword, verifier, channel, mechanism, nil, ""},
		{"offer taken away", thePassword, verifier, channel, mechanism, advertising, "28000"},
		{"nothing to bind to", thePassword, verifier, nil, mechanism, advertising, ""},
		{"bound without offer", thePassword, verifier, nil, mechanismBound, bindTo("x"), "08P01"},
		{"bound by the other mechanism", thePassword, verifier, channel, mechanism, bindTo("end point"), "08P01"},
		{"not bound by the bound mechanism", thePassword, verifier, channel, mechanismBound, nil, "08P01"},
		{"unknown mechanism", thePassword, verifier, channel, "SCRAM-SHA-1", nil, "08P01"},
	} {
		keys, err := run(t, tc.verifier, tc.binding, tc.mechanism, newClient(t, tc.password, tc.client))
		switch {
		case tc.want == "" && err != nil, tc.want == "password" != errors.Is(err, ErrPassword):
			t.Errorf("%s: got %v", tc.name, err)
		case len(tc.want) == 5 && pgerr.Of(err).Code != tc.want:
			t.Errorf("%s: got %v", tc.name, err)
		case tc.want == "" && (len(keys.Client) != keySize || len(keys.Server) != keySize || keys.Iterations != iterations):
			t.Errorf("%s: got keys %+v", tc.name, keys)
		}
	}
}

// The first message of a client for each kind of mistake.
func TestSCRAMMistakes(t *testing.T) {
	verifier := parsed(t, storedVerifier(t, thePassword))
	for message, want := range map[string]string{
		"":                                     "malformed SCRAM message",
		"n":                                    "malformed SCRAM message",
		"n,,":                                  "malformed SCRAM message",
		"n,,n=\x00,r=abc":                      "malformed SCRAM message",
		"n,a=admin,n=,r=abc":                   "client uses authorization identity, but it is not supported",
		"n,,m=x,n=,r=abc":                      "malformed SCRAM message",
		"x,,n=,r=abc":                          "malformed SCRAM message",
		"p=tls-unique,,n=,r=abc":               "malformed SCRAM message",
		"n,,n=,r=" + strings.Repeat("x", 1024): "malformed SCRAM message",
	} {
		x, err := NewSCRAM(verifier, "u", Secret{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.Begin(mechanism, []byte(message)); err == nil || pgerr.Of(err).Message != want || !pgerr.Of(err).IsFatal() {
			t.Errorf("%q: got %v", message, err)
		}
	}
	x, err := NewSCRAM(verifier, "u", Secret{}, []byte("channel"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Begin(mechanismBound, []byte("p=tls-unique,,n=,r=abc")); err == nil || pgerr.Of(err).Message != `unsupported SCRAM channel-binding type "tls-unique"` {
		t.Errorf("got %v", err)
	}
}

// A role that does not exist is asked like any other, by the same salt each time.
func TestMadeUpVerifier(t *testing.T) {
	secret := NewSecret()
	challenge := func(user string) string {
		x, err := NewSCRAM(Verifier{}, user, secret, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x.Begin(mechanism, []byte("n,,n=,r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(c), ",")
		return rest
	}
	first, again, other := challenge("a"), challenge("a"), challenge("b")
	if first != again || first == other {
		t.Error("salts of made-up verifiers tell that they are made up")
	}
}

// The messages of a client that does not know the password never get in, and never break the server.
func FuzzSCRAM(f *testing.F) {
	stored := storedVerifier(f, thePassword)
	f.Add("SCRAM-SHA-256", "n,,n=,r=abc", "c=biws,r=abc,p=AAAA", false)
	f.Add("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc", "c=,r=,p=", true)
	f.Fuzz(func(t *testing.T, mechanism, first, last string, bound bool) {
		var binding []byte
		if bound {
			binding = []byte("channel")
		}
		x, err := NewSCRAM(parsed(t, stored), "u", Secret{}, binding)
		if err != nil {
			t.Fatal(err)
		}
		challenge, err := x.Begin(mechanism, []byte(first))
		if err != nil {
			if pgerr.Of(err).Code == pgerr.InternalError {
				t.Fatal(err)
			}
			return
		}
		// What is left to guess is the proof.
		nonce, _, _ := strings.Cut(strings.TrimPrefix(string(challenge), "r="), ",")
		for _, final := range []string{last, strings.ReplaceAll(last, "abc", nonce), "c=biws,r=" + nonce + ",p=" + base64.StdEncoding.EncodeToString([]byte(last))} {
			x, _ := NewSCRAM(parsed(t, stored), "u", Secret{}, binding)
			if _, err := x.Begin(mechanism, []byte(first)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := x.Finish([]byte(final)); err == nil {
				t.Fatalf("%q came in", final)
			}
		}
	})
}

func FuzzParseVerifier(f *testing.F) {
	f.Add(storedVerifier(f, thePassword))
	f.Add("md50123456789abcdef0123456789abcdef")
	f.Add("SCRAM-SHA-256$0::")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVerifier(text, true)
		if err != nil {
			return
		}
		if _, ok := v.Password(); ok {
			return // its keys take long to compute
		}
		if keys, _ := v.forSCRAM("u", Secret{}); len(keys.StoredKey) != keySize || len(keys.Salt) == 0 || keys.Iters < 1 {
			t.Fatalf("%q: got %+v", text, keys)
		}
		if _, err := ParseVerifier(text, false); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func TestMD5(t *testing.T) {
	digest := func(text string) string {
		sum := md5.Sum([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	salt := [4]byte{1, 2, 3, 4}
	v := parsed(t, "md5"+digest("secretuser"))
	answer := "md5" + digest(digest("secretuser")+string(salt[:])) + "\x00"
	if !v.AsksMD5() || !v.CheckMD5(salt, []byte(answer)) {
		t.Error("the right password is refused")
	}
	for _, wrong := range []string{"", "\x00", answer[:len(answer)-1], "md5" + digest(digest("otheruser")+string(salt[:])) + "\x00", answer + "x"} {
		if v.CheckMD5(salt, []byte(wrong)) {
			t.Errorf("%q is taken", wrong)
		}
	}
	if parsed(t, thePassword).AsksMD5() || (Verifier{}).CheckMD5(salt, []byte(answer)) {
		t.Error("a role without md5 is asked by md5")
	}
	if _, err := ParseVerifier("md5XYZ", false); err == nil {
		t.Error("a verifier of no kind is taken")
	}
}
