package compose

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// host runs one service as a container engine would: an address, a folder and processes of its own.
type host struct {
	service types.ServiceConfig
	ip      string
	dir     string
	// names maps the services of the network to their addresses.
	names map[string]string
	// path has the folders of the programs.
	path string
	log  *os.File
}

var hostPort = regexp.MustCompile(`\b([a-z][a-z0-9]*):(\d+)\b`)

// localise does to a text what a network of containers does: names become addresses, and each
// container has loopback, every port and /var/lib for itself.
func (h *host) localise(text string) string {
	text = hostPort.ReplaceAllStringFunc(text, func(pair string) string {
		name, port, _ := strings.Cut(pair, ":")
		if ip, ok := h.names[name]; ok {
			return ip + ":" + port
		}
		return pair
	})
	for _, own := range []string{"0.0.0.0", "127.0.0.1"} {
		text = strings.ReplaceAll(text, own, h.ip)
	}
	return strings.ReplaceAll(text, "/var/lib/", h.dir+"/")
}

func (h *host) localiseAll(words []string) []string {
	local := make([]string, len(words))
	for i, word := range words {
		local[i] = h.localise(word)
	}
	return local
}

func (h *host) environment() []string {
	env := []string{"PATH=" + h.path, "HOME=" + h.dir, "LC_ALL=C.UTF-8"}
	for name, value := range h.service.Environment {
		if value != nil {
			env = append(env, name+"="+h.localise(*value))
		}
	}
	return env
}

// command builds a process of the service that writes to its log.
func (h *host) command(ctx context.Context, words []string) *exec.Cmd {
	program := words[0]
	for _, dir := range filepath.SplitList(h.path) {
		if info, err := os.Stat(filepath.Join(dir, words[0])); err == nil && !info.IsDir() {
			program = filepath.Join(dir, words[0])
			break
		}
	}
	cmd := exec.CommandContext(ctx, program, words[1:]...)
	cmd.Env, cmd.Dir = h.environment(), h.dir
	cmd.Stdout, cmd.Stderr = h.log, h.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// start runs the service's command until the test ends.
func (h *host) start(t *testing.T) {
	t.Helper()
	words := append(append([]string{}, h.service.Entrypoint...), h.service.Command...)
	if h.service.Build != nil && len(h.service.Entrypoint) == 0 {
		words = append([]string{"shardyard"}, words...) // the Dockerfile's entry point
	}
	words = h.localiseAll(words)
	if strings.HasPrefix(h.service.Image, "postgres:") {
		words = h.postgres(t, words)
	}
	cmd := h.command(context.WithoutCancel(t.Context()), words)
	if strings.HasPrefix(h.service.Image, "postgres:") {
		asPostgres(t, cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %s", h.service.Name, err)
	}
	t.Cleanup(func() {
		stop := syscall.SIGTERM
		if strings.HasPrefix(h.service.Image, "postgres:") {
			stop = syscall.SIGINT // a fast shutdown, as the image's STOPSIGNAL
		}
		_ = cmd.Process.Signal(stop) // it may have ended
		kill := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait() // ended by our signal
		kill.Stop()
	})
}

// runToEnd is for a service that others wait for to complete.
func (h *host) runToEnd(t *testing.T) {
	t.Helper()
	words := h.localiseAll(append(append([]string{}, h.service.Entrypoint...), h.service.Command...))
	if err := h.command(t.Context(), words).Run(); err != nil {
		t.Fatalf("%s: %s", h.service.Name, err)
	}
}

// postgres does what the entry point of the official image does before it runs the server.
func (h *host) postgres(t *testing.T, words []string) []string {
	t.Helper()
	data := filepath.Join(h.dir, "data")
	variable := func(name string) string {
		if value := h.service.Environment[name]; value != nil {
			return *value
		}
		return ""
	}
	password := filepath.Join(h.dir, "password")
	if err := os.WriteFile(password, []byte(variable("POSTGRES_PASSWORD")), 0o644); err != nil {
		t.Fatal(err)
	}
	initdb := append([]string{"initdb", "-D", data, "-U", variable("POSTGRES_USER"), "--pwfile", password},
		strings.Fields(variable("POSTGRES_INITDB_ARGS"))...)
	cmd := h.command(t.Context(), append(initdb, "--auth-local=trust", "--auth-host=scram-sha-256"))
	asPostgres(t, cmd)
	if err := cmd.Run(); err != nil {
		t.Fatalf("initdb of %s: %s", h.service.Name, err)
	}
	hba, err := os.OpenFile(filepath.Join(data, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hba.WriteString("host all all all scram-sha-256\n"); err != nil {
		t.Fatal(err)
	}
	if err := hba.Close(); err != nil {
		t.Fatal(err)
	}
	return append(words, "-D", data, "-h", h.ip, "-k", "")
}

// healthy runs the health check until it passes.
func (h *host) healthy(t *testing.T) {
	t.Helper()
	if h.service.HealthCheck == nil {
		t.Fatalf("%s has no health check", h.service.Name)
	}
	words := h.service.HealthCheck.Test
	switch words[0] {
	case "CMD":
		words = h.localiseAll(words[1:])
	case "CMD-SHELL":
		words = []string{"/bin/sh", "-c", h.localise(words[1])}
	default:
		t.Fatalf("%s: health check %q", h.service.Name, words)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		err := h.command(t.Context(), words).Run()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not healthy: %s", h.service.Name, err)
		}
		time.Sleep(100 * time.Millisecond) // between two polls, as interval in the file
	}
}

// asPostgres drops root, which Postgres refuses to run as.
func asPostgres(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
	if uidErr != nil || gidErr != nil {
		t.Fatalf("ids of user postgres: %s, %s", account.Uid, account.Gid)
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if err := os.Chown(cmd.Dir, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
}

// newHost gives a service its address and folder.
func newHost(t *testing.T, service types.ServiceConfig, names map[string]string, path string) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "compose-"+service.Name+"-") // t.TempDir is closed to the postgres user
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), service.Name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if text, err := os.ReadFile(log.Name()); err == nil {
				t.Logf("log of %s:\n%s", service.Name, lastBytes(text, 4000))
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &host{service: service, ip: names[service.Name], dir: dir, names: names, path: path, log: log}
}

func lastBytes(text []byte, n int) string {
	if len(text) > n {
		return fmt.Sprintf("… %s", text[len(text)-n:])
	}
	return string(text)
}
