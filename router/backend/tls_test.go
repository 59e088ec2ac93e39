package backend

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shardyard/shardyard/internal/devcluster"
)

// certificate writes a self-signed certificate for 127.0.0.1 and its key where the servers can read them.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shard"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := devcluster.TempDir(t)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 { // the servers run as another user
		for _, name := range []string{"postgres", "nobody"} {
			account, err := user.Lookup(name)
			if err != nil {
				continue
			}
			uid, _ := strconv.Atoi(account.Uid)
			gid, _ := strconv.Atoi(account.Gid)
			for _, file := range []string{certFile, keyFile} {
				if err := os.Chown(file, uid, gid); err != nil {
					t.Fatal(err)
				}
			}
			break
		}
	}
	return certFile, keyFile
}

func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	hba := filepath.Join(filepath.Dir(cert), "hba.conf")
	rules := "hostssl all scram_user 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n"
	if err := os.WriteFile(hba, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	encrypted := devcluster.ForTest(t, devcluster.Config{Shards: 1, Settings: map[string]string{
		"ssl": "on", "ssl_cert_file": cert, "ssl_key_file": key, "hba_file": hba,
	}})
	there := encrypted.Shards()[0]
	const password = `pa ss'\w`
	p := newPools(t, func(c *Config) {
		c.ApplicationName, c.Passwords = "shardyard/r1/0123abcd.", map[string]string{"scram_user": password}
		c.PoolSize, c.TLS = 2, TLS{Mode: "verify-full", RootCert: cert}
	})
	ctx := testContext(t)
	take := func() *Conn {
		c, err := p.Acquire(ctx, there, superuser, 1)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := take()
	if got := one(t, c, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); got != "t" {
		t.Fatal("the connection is not encrypted")
	}
	if name := one(t, c, "SHOW application_name"); name != "shardyard/r1/0123abcd." {
		t.Fatalf("application_name is %q", name)
	}
	mustQuery(t, c, "CREATE ROLE scram_user LOGIN PASSWORD '"+strings.ReplaceAll(password, "'", "''")+"'")
	scram, err := p.Acquire(ctx, there, Identity{Database: "postgres", User: "scram_user"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := one(t, scram, "SELECT current_user"); got != "scram_user" {
		t.Fatalf("logged in as %s", got)
	}
	p.Release(scram)
	watch := take()
	var group sync.WaitGroup
	group.Go(func() {
		eventually(t, "the statement runs", func() bool {
			return one(t, watch, fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND wait_event = 'PgSleep'", c.PID())) == "1"
		})
		if err := c.Canceller().Cancel(ctx); err != nil {
			t.Error(err)
		}
	})
	_, err = query(c, "SELECT pg_sleep(1000)")
	wantState(t, err, "57014")
	group.Wait()
	pid := c.PID()
	p.Release(c)
	if c = take(); c.PID() != pid {
		t.Fatal("a healthy encrypted connection was dropped")
	}
	p.Release(c)
	one(t, watch, fmt.Sprintf("SELECT pg_terminate_backend(%d, 5000)", pid))
	if c = take(); c.PID() == pid {
		t.Fatal("a dead encrypted connection was given out")
	}
	one(t, c, "SELECT 1")
	p.Release(c)
	p.Release(watch)

	nameless := newPools(t, func(c *Config) { c.TLS.Mode = "require" })
	if _, err = nameless.Acquire(ctx, there, Identity{Database: "postgres", User: "scram_user"}, 1); err == nil {
		t.Fatal("logged in without the password")
	}
	plain := newPools(t, func(c *Config) { c.TLS.Mode = "verify-full" }) // the certificate is nobody's that we trust
	if c, err := plain.Acquire(ctx, there, superuser, 1); err == nil {
		plain.Release(c)
		t.Fatal("an unknown certificate was trusted")
	}
}

func TestPassfile(t *testing.T) {
	admin(t, "postgres", "DROP ROLE IF EXISTS from_file; CREATE ROLE from_file LOGIN PASSWORD 'from file'")
	file := filepath.Join(t.TempDir(), "passfile")
	if err := os.WriteFile(file, []byte("*:*:*:from_file:from file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{RouterName: "r1", Passfile: file}.withDefaults()
	config, err := cfg.connectConfig(shard().Primary, Identity{Database: "postgres", User: "from_file"})
	if err != nil || config.Password != "from file" {
		t.Fatalf("got %q %v", config.Password, err)
	}
	other, err := cfg.connectConfig(shard().Primary, superuser)
	if err != nil || other.Password != "" {
		t.Fatalf("got %q %v", other.Password, err)
	}
}
