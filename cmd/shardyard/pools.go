package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/backend"
)

// poolRule changes the pools of a database, of a role or of a role in a database. What it leaves out is as elsewhere.
type poolRule struct {
	// Database and User that it is for; empty is any. One of them must be given.
	Database string `koanf:"database"`
	User     string `koanf:"user"`
	// Size, Reserve, Min and Mode are as those of pool.
	Size    int    `koanf:"size"`
	Reserve *int   `koanf:"reserve"`
	Min     *int   `koanf:"min"`
	Mode    string `koanf:"mode"`
	// Clients bounds the client connections that it is for; 0 takes a bound away.
	Clients *int `koanf:"clients"`
}

// String is the rule as SHOW CONFIG has it.
func (r poolRule) String() string {
	var parts []string
	v := reflect.ValueOf(r)
	for i := range v.NumField() {
		field := v.Field(i)
		if field.IsZero() {
			continue
		}
		parts = append(parts, fmt.Sprintf("%s=%v", v.Type().Field(i).Tag.Get("koanf"), reflect.Indirect(field)))
	}
	return "{" + strings.Join(parts, " ") + "}"
}

// refuseUnknownRuleKeys looks at what koanf takes for one value: the list of pools.
func refuseUnknownRuleKeys(pools any) error {
	rules, _ := pools.([]any) // another type is refused when it is read
	known := configKeys(reflect.TypeFor[poolRule](), "")
	for i, rule := range rules {
		keys, _ := rule.(map[string]any)
		for key := range keys {
			if !slices.Contains(known, key) {
				return fmt.Errorf("unknown configuration key pools[%d].%s; the keys are %s", i, key, strings.Join(known, ", "))
			}
		}
	}
	return nil
}

func (c config) validatePools(fault func(key, format string, args ...any)) {
	mode := func(key, mode string) {
		if mode != string(backend.TransactionMode) && mode != string(backend.SessionMode) {
			fault(key, "%q is neither transaction nor session", mode)
		}
	}
	mode("pool.mode", c.Pool.Mode)
	if c.Pool.Reserve < 0 {
		fault("pool.reserve", "%d is negative", c.Pool.Reserve)
	}
	if c.Pool.Min < 0 || c.Pool.Min > c.Pool.Size {
		fault("pool.min", "%d is not between 0 and pool.size", c.Pool.Min)
	}
	if c.Pool.MaxWaiting < 1 {
		fault("pool.max_waiting", "%d is less than 1", c.Pool.MaxWaiting)
	}
	if c.MaxDatabaseClients < 0 {
		fault("max_database_clients", "%d is negative", c.MaxDatabaseClients)
	}
	if c.MaxUserClients < 0 {
		fault("max_user_clients", "%d is negative", c.MaxUserClients)
	}
	seen := make(map[backend.Identity]bool)
	for i, r := range c.Pools {
		key := fmt.Sprintf("pools[%d]", i)
		id := backend.Identity{Database: r.Database, User: r.User}
		switch {
		case id == backend.Identity{}:
			fault(key, "it names neither a database nor a user; what is for all is set by pool and max_clients")
		case seen[id]:
			fault(key, "there is another one for database %q and user %q", r.Database, r.User)
		}
		seen[id] = true
		if r.Mode != "" {
			mode(key+".mode", r.Mode)
		}
		for name, n := range map[string]*int{".size": &r.Size, ".reserve": r.Reserve, ".min": r.Min, ".clients": r.Clients} {
			if n != nil && *n < 0 {
				fault(key+name, "%d is negative", *n)
			}
		}
	}
}

// poolRules are the rules as the pools take them.
func (c config) poolRules() []backend.LimitRule {
	rules := make([]backend.LimitRule, 0, len(c.Pools))
	for _, r := range c.Pools {
		rules = append(rules, backend.LimitRule{
			Database: r.Database, User: r.User, Size: r.Size, Reserve: r.Reserve, Min: r.Min, Mode: backend.Mode(r.Mode),
		})
	}
	return rules
}

// clientLimits are the bounds of the clients.
func (c config) clientLimits() router.ClientLimits {
	limits := router.ClientLimits{Total: c.MaxClients, Database: c.MaxDatabaseClients, User: c.MaxUserClients}
	for _, r := range c.Pools {
		if r.Clients != nil {
			limits.Rules = append(limits.Rules, router.ClientRule{Database: r.Database, User: r.User, Clients: *r.Clients})
		}
	}
	return limits
}

// adminUsers are the service role where nobody is named.
func (c config) adminUsers() []string {
	if len(c.AdminUsers) == 0 {
		return []string{c.Service.User}
	}
	return c.AdminUsers
}
