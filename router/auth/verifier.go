package auth

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// Verifier is what is known of a role's password. The zero Verifier is that of a role without one.
type Verifier struct {
	keys     scram.StoredCredentials // of SCRAM-SHA-256, if StoredKey is not empty
	md5      string                  // md5 and 32 digits, or ""
	password string                  // in clear text, or ""
}

const (
	scramPrefix = "SCRAM-SHA-256$"
	md5Prefix   = "md5"
	// keySize is that of the keys of SCRAM-SHA-256.
	keySize = sha256.Size
	// iterations are those of verifiers that are made here; Postgres's default.
	iterations = 4096
	// maxIterations bounds what a verifier may make a client do.
	maxIterations = 100_000_000
)

// ParseVerifier reads what pg_authid.rolpassword and userlist.txt hold: SCRAM-SHA-256$iterations:salt$stored key:server key,
// or md5 and 32 digits, or nothing. Anything else is a password where that is allowed, else an error.
func ParseVerifier(text string, mayBePassword bool) (Verifier, error) {
	if rest, ok := strings.CutPrefix(text, scramPrefix); ok {
		keys, err := parseKeys(rest)
		return Verifier{keys: keys}, err
	}
	digits, ok := strings.CutPrefix(text, md5Prefix)
	switch {
	case ok && len(digits) == 32 && strings.Trim(digits, "0123456789abcdef") == "":
		return Verifier{md5: text}, nil
	case mayBePassword || text == "":
		return Verifier{password: text}, nil
	}
	return Verifier{}, errors.New("it is a verifier neither of SCRAM-SHA-256 nor of md5")
}

func parseKeys(text string) (scram.StoredCredentials, error) {
	malformed := errors.New("its verifier is not SCRAM-SHA-256$iterations:salt$stored key:server key")
	factors, keys, ok := strings.Cut(text, "$")
	count, salt, ok1 := strings.Cut(factors, ":")
	stored, server, ok2 := strings.Cut(keys, ":")
	n, err := strconv.Atoi(count)
	if !ok || !ok1 || !ok2 || err != nil || n < 1 || n > maxIterations {
		return scram.StoredCredentials{}, malformed
	}
	var decoded [3][]byte
	for i, part := range []string{salt, stored, server} {
		if decoded[i], err = base64.StdEncoding.DecodeString(part); err != nil {
			return scram.StoredCredentials{}, malformed
		}
	}
	if len(decoded[0]) == 0 || len(decoded[1]) != keySize || len(decoded[2]) != keySize {
		return scram.StoredCredentials{}, malformed
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(decoded[0]), Iters: n}, StoredKey: decoded[1], ServerKey: decoded[2],
	}, nil
}

// Password returns the password itself, if it is known.
func (v Verifier) Password() (string, bool) { return v.password, v.password != "" }

// AsksMD5 reports whether the method md5 asks by md5.
func (v Verifier) AsksMD5() bool { return v.md5 != "" }

// CheckMD5 compares the answer to a request for a password by md5 with the salt. The answer is what the message contains,
// with the zero byte at its end.
func (v Verifier) CheckMD5(salt [4]byte, answer []byte) bool {
	if v.md5 == "" {
		return false
	}
	sum := md5.Sum(append([]byte(v.md5[len(md5Prefix):]), salt[:]...))
	want := md5Prefix + hex.EncodeToString(sum[:]) + "\x00"
	return subtle.ConstantTimeCompare([]byte(want), answer) == 1
}

// Secret is what the made-up verifiers and salts of a router come from, so that a name gets the same each time.
type Secret [32]byte

// NewSecret returns a random one.
func NewSecret() (s Secret) {
	rand.Read(s[:]) // never fails
	return s
}

func (s Secret) salt(user string) string {
	mac := hmac.New(sha256.New, s[:])
	mac.Write([]byte(user))
	return string(mac.Sum(nil)[:16])
}

// forSCRAM returns the keys to check against. For a role that has none it makes some up that no password fits, so that nobody
// learns which roles there are.
func (v Verifier) forSCRAM(user string, secret Secret) (keys scram.StoredCredentials, genuine bool) {
	if len(v.keys.StoredKey) > 0 {
		return v.keys, true
	}
	factors := scram.KeyFactors{Salt: secret.salt(user), Iters: iterations}
	if v.password != "" {
		if keys, err := derive(v.password, factors); err == nil {
			return keys, true
		}
	}
	random := make([]byte, 2*keySize)
	rand.Read(random) // never fails
	return scram.StoredCredentials{KeyFactors: factors, StoredKey: random[:keySize], ServerKey: random[keySize:]}, false
}

// derive computes the keys of a password as Postgres does: as it stands where SASLprep does not take it.
func derive(password string, factors scram.KeyFactors) (scram.StoredCredentials, error) {
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		if client, err = scram.SHA256.NewClientUnprepped("", password, ""); err != nil {
			return scram.StoredCredentials{}, err
		}
	}
	return client.GetStoredCredentialsWithError(factors)
}

// FromPassword returns a verifier with the keys of a password already computed, which takes milliseconds; others as they are.
func (v Verifier) FromPassword(user string, secret Secret) Verifier {
	if v.password != "" {
		if keys, genuine := v.forSCRAM(user, secret); genuine {
			v.keys = keys
		}
	}
	return v
}
