package logins

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// authorities are two who sign certificates; the routers and shards trust the first.
type authorities struct {
	dir        string
	root       string // file
	good, evil signer
	server     pair

	mu     sync.Mutex
	serial int64
}

// signer signs certificates.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// pair are the files of a certificate and its key.
type pair struct{ cert, key string }

func newAuthorities(dir string) (*authorities, error) {
	a := &authorities{dir: dir}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	for _, s := range []*signer{&a.good, &a.evil} {
		if err := a.newSigner(s); err != nil {
			return nil, err
		}
	}
	a.root = filepath.Join(dir, "root.pem")
	if err := writePEM(a.root, "CERTIFICATE", a.good.cert.Raw); err != nil {
		return nil, err
	}
	var err error
	a.server, err = a.issue(a.good, "server", "shardyard")
	return a, err
}

func (a *authorities) template(name string) *x509.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serial++
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
	}
}

func (a *authorities) newSigner(s *signer) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := a.template("authority " + rand.Text())
	template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	s.key = key
	s.cert, err = x509.ParseCertificate(raw)
	return err
}

// issue writes a certificate for a name, good for servers on loopback and for clients.
func (a *authorities) issue(by signer, file, name string) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	template := a.template(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.IPAddresses, template.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	raw, err := x509.CreateCertificate(rand.Reader, template, by.cert, &key.PublicKey, by.key)
	if err != nil {
		return pair{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, err
	}
	p := pair{cert: filepath.Join(a.dir, file+".pem"), key: filepath.Join(a.dir, file+"-key.pem")}
	return p, errors.Join(writePEM(p.cert, "CERTIFICATE", raw), writePEM(p.key, "PRIVATE KEY", private))
}

func writePEM(file, kind string, raw []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600)
}
