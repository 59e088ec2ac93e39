package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func load(t *testing.T, yamlText string, environ []string, args ...string) (config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addServeFlags(flags)
	if yamlText != "" {
		path := filepath.Join(t.TempDir(), "shardyard.yaml")
		if err := os.WriteFile(path, []byte(yamlText), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return loadConfig(flags, environ)
}

func TestLaterSourcesWin(t *testing.T) {
	c, err := load(t, `
listen: 127.0.0.1:1111
pool:
  size: 5
  acquire_timeout: 3s
users:
  app: secret
etcd:
  endpoints: [a:1, b:2]
`, []string{"SHARDYARD_LISTEN=127.0.0.1:2222", "SHARDYARD_POOL_SIZE=6", "SHARDYARD_NAME=r1", "SHARDYARD_USERS_bob=pw", "OTHER=x"},
		"--pool-size", "7", "--etcd-endpoints", "x:1,y:2")
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:2222" || c.Pool.Size != 7 || c.Name != "r1" || c.Pool.AcquireTimeout != 3*time.Second {
		t.Errorf("got %+v", c)
	}
	if c.Users["app"] != "secret" || c.Users["bob"] != "pw" {
		t.Errorf("users: got %v", c.Users)
	}
	if strings.Join(c.Etcd.Endpoints, " ") != "x:1 y:2" {
		t.Errorf("endpoints: got %v", c.Etcd.Endpoints)
	}
}

func TestFaultsNameTheirKeys(t *testing.T) {
	for _, tc := range []struct {
		yaml, environ, arg string
		want               string
	}{
		{yaml: "listen: nowhere", want: "listen:"},
		{yaml: "pool: {size: 0}", want: "pool.size:"},
		{yaml: "pool: {siz: 4}", want: "unknown configuration key pool.siz"},
		{environ: "SHARDYARD_POOL_SIZES=4", want: "unknown configuration key pool_sizes"},
		{yaml: "pool: {acquire_timeout: soon}", want: "pool.acquire_timeout"},
		{yaml: "etcd: {lease_ttl: 1s}", want: "etcd.lease_ttl:"},
		{yaml: "etcd: {prefix: shardyard}", want: "etcd.prefix:"},
		{yaml: "auth: {method: md5}", want: "auth.method:"},
		{yaml: "auth: {hba_file: f, trust_loopback: true}", want: "auth.hba_file:"},
		{yaml: "auth: {max_failures: 0}", want: "auth.max_failures:"},
		{yaml: "auth: {max_starting: -1}", want: "auth.max_starting:"},
		{yaml: "auth: {timeout: 0s}", want: "auth.timeout:"},
		{yaml: "tls: {mode: require}", want: "tls:"},
		{yaml: "tls: {mode: prefer}", want: "tls:"},
		{yaml: "server_tls: {mode: full}", want: "server_tls.mode:"},
		{environ: "SHARDYARD_SERVER_TLS_CERT=c", want: "server_tls:"},
		{arg: "--log-level=loud", want: "log.level:"},
		{arg: "--name=a/b", want: "name:"},
	} {
		var environ, args []string
		if tc.environ != "" {
			environ = []string{tc.environ}
		}
		if tc.arg != "" {
			args = []string{tc.arg}
		}
		_, err := load(t, tc.yaml, environ, args...)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got error %v, want it to name %q", tc, err, tc.want)
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	if err := defaultConfig().validate(); err != nil {
		t.Error(err)
	}
}
