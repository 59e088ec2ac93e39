package logins

import (
	"strings"
	"testing"

	"github.com/shardyard/shardyard/internal/node"
)

// The admin database has the same door.
func TestAdminDatabase(t *testing.T) {
	t.Parallel()
	const admin = "console_admin"
	d := newDoor(t, "hostssl shardyard all all scram-sha-256\n", func(c *node.Config) {
		c.Router.AdminUsers = []string{admin}
	})
	d.makeRole(admin, "secret")
	other := d.role("secret")
	url := func(user, password string) string {
		return strings.Replace(d.url(user, password, ""), "dbname="+d.Name, "dbname=shardyard", 1)
	}
	got, err := d.psql(url(admin, "secret"), "SHOW CLIENTS")
	if err != nil || !strings.Contains(got, admin+"|shardyard") || !strings.Contains(got, "TLS") {
		t.Errorf("got %q %v", got, err)
	}
	for password, user := range map[string]string{"wrong": admin, "secret": other} {
		if got, err := d.psql(url(user, password), "SHOW CLIENTS"); err == nil {
			t.Errorf("%s came in: %q", user, got)
		}
	}
	d.mustFail(admin, "secret", "", "28000", "no rule of authentication") // to another database
}
