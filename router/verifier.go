package router

import (
	"crypto/md5" //nolint:gosec // Postgres's own md5 passwords, where password_encryption says so
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/xdg-go/scram"

	"github.com/shardyard/shardyard/router/auth"
)

// saltLength is the number of bytes of a new verifier's salt, as in Postgres.
const saltLength = 16

// isVerifier reports whether Postgres takes a password for one that is encrypted already, which it stores as it is.
func isVerifier(password string) bool {
	_, err := auth.ParseVerifier(password, false)
	return err == nil
}

// md5Verifier is what Postgres stores for a password where password_encryption is md5.
func md5Verifier(password, role string) string {
	digest := md5.Sum([]byte(password + role)) //nolint:gosec // see the import
	return "md5" + hex.EncodeToString(digest[:])
}

// scramVerifier is what Postgres stores for a password where password_encryption is scram-sha-256.
func scramVerifier(password string, salt []byte, iterations int) (string, error) {
	client, err := scram.SHA256.NewClientUnprepped("", password, "")
	if !isASCII(password) {
		// As in Postgres a password that SASLprep does not take stays as it is.
		if prepared, prepError := scram.SHA256.NewClient("", password, ""); prepError == nil {
			client = prepared
		}
	}
	if err != nil {
		return "", fmt.Errorf("make verifier: %w", err)
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
	if err != nil {
		return "", fmt.Errorf("make verifier: %w", err)
	}
	encode := base64.StdEncoding.EncodeToString
	return "SCRAM-SHA-256$" + strconv.Itoa(iterations) + ":" + encode(salt) + "$" + encode(stored.StoredKey) + ":" + encode(stored.ServerKey), nil
}
