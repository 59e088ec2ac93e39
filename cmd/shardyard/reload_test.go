package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/testbed"
)

// server is shardyard serve as a process of its own.
type server struct {
	t       *testing.T
	folder  string
	address string
	process *os.Process

	mu  sync.Mutex
	log bytes.Buffer
}

// Write takes what the process logs.
func (s *server) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(b)
}

func (s *server) logged(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.log.String(), text)
}

func (s *server) write(name, text string) {
	s.t.Helper()
	testbed.Must(s.t, os.WriteFile(filepath.Join(s.folder, name), []byte(text), 0o600))
}

// certify writes a new certificate, with a serial number that tells it from others, and its key.
func (s *server) certify(serial int64) {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testbed.Must(s.t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	testbed.Must(s.t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	testbed.Must(s.t, err)
	s.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	s.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

// connect opens a session; serial is that of the certificate that the router has shown.
func (s *server) connect() (conn *pgx.Conn, serial int64, err error) {
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=require", s.address))
	testbed.Must(s.t, err)
	config.TLSConfig.VerifyConnection = func(state tls.ConnectionState) error {
		serial = state.PeerCertificates[0].SerialNumber.Int64()
		return nil
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	conn, err = pgx.ConnectConfig(ctx, config)
	return conn, serial, err
}

// SIGHUP reads rules and certificate again, for new sessions; files that cannot be used change nothing. SIGTERM ends the process.
func reloadBySignal(t *testing.T, cluster *devcluster.Cluster) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	testbed.Must(t, err)
	s := &server{t: t, folder: t.TempDir(), address: listener.Addr().String()}
	testbed.Must(t, listener.Close())
	s.certify(1)
	s.write("hba.conf", "host all all all reject\n")
	s.write("shardyard.yaml", fmt.Sprintf("listen: %s\nname: reloaded\netcd: {endpoints: [%s]}\nauth: {hba_file: %[3]s/hba.conf}\ntls: {cert: %[3]s/cert.pem, key: %[3]s/key.pem}\n",
		s.address, strings.Join(cluster.Etcd().Endpoints(), ","), s.folder))
	binary, err := os.Executable()
	testbed.Must(t, err)
	cmd := exec.Command(binary, "serve", "--config", filepath.Join(s.folder, "shardyard.yaml"))
	cmd.Env, cmd.Stderr, cmd.Stdout = append(os.Environ(), asCommand+"=1"), s, s
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	testbed.Must(t, cmd.Start())
	s.process = cmd.Process
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended unless the test failed
		if t.Failed() {
			t.Log(s.log.String())
		}
	})

	var refused *pgconn.PgError
	testbed.Until(t, "the router turns clients away", func() bool {
		_, serial, err := s.connect()
		return errors.As(err, &refused) && refused.Code == "28000" && serial == 1
	})
	s.certify(2)
	s.write("hba.conf", "host all all all trust\n")
	testbed.Must(t, s.process.Signal(syscall.SIGHUP))
	var first *pgx.Conn
	testbed.Until(t, "the new rules and the new certificate count", func() bool {
		var serial int64
		first, serial, err = s.connect()
		return err == nil && serial == 2
	})
	defer closeConn(context.WithoutCancel(t.Context()), first)
	s.certify(3)
	s.write("hba.conf", "garbage\n")
	testbed.Must(t, s.process.Signal(syscall.SIGHUP))
	testbed.Until(t, "the log tells of the garbage", func() bool { return s.logged("configuration not reloaded") && s.logged("hba.conf: line 1") })
	second, serial, err := s.connect()
	testbed.Must(t, err)
	if serial != 2 {
		t.Errorf("the certificate of files that cannot be used counts: %d", serial)
	}
	for _, conn := range []*pgx.Conn{first, second} {
		_, err := conn.Exec(t.Context(), "SELECT 1")
		testbed.Must(t, err)
	}
	closeConn(t.Context(), second)
	testbed.Must(t, s.process.Signal(syscall.SIGTERM))
	testbed.Must(t, cmd.Wait())
}
