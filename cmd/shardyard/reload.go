package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router/console"
)

// reloader reads the configuration again: on SIGHUP, and when RELOAD is run in the admin database.
type reloader struct {
	load func() (config, error)
	log  *slog.Logger

	mu      sync.Mutex
	current config
	running *node.Node
}

// changeable are the keys that count without a restart, or the folders of such keys.
var changeable = []string{
	"pool.size", "pool.reserve", "pool.min", "pool.mode", "pools", "max_clients", "max_database_clients", "max_user_clients",
	"auth.method", "auth.trust_loopback", "auth.hba_file", "auth.ident_file", "auth.user_file", "auth.query", "auth.query_database",
	"auth.max_failures", "auth.lockout", "tls",
}

func isChangeable(key string) bool {
	return slices.ContainsFunc(changeable, func(known string) bool { return key == known || strings.HasPrefix(key, known+".") })
}

// started says which router the configuration is for.
func (r *reloader) started(running *node.Node) {
	r.mu.Lock()
	r.running = running
	r.mu.Unlock()
}

// reload reads the configuration and applies what can be changed. With an error everything stays as it was.
func (r *reloader) reload(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running == nil {
		return errors.New("the router is still starting")
	}
	next, err := r.load()
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if err := r.running.Reload(next.node()); err != nil {
		return err
	}
	before := make(map[string]string)
	for _, s := range r.current.settings() {
		before[s.Key] = s.Value
	}
	for _, s := range next.settings() {
		if s.Value != before[s.Key] && !s.Changeable {
			r.log.WarnContext(ctx, "a changed key counts after a restart only", "key", s.Key)
		}
	}
	r.current = next
	r.log.InfoContext(ctx, "configuration reloaded")
	return nil
}

// settings lists the configuration as it is now.
func (r *reloader) settings() []console.Setting {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current.settings()
}

// settings lists the keys and their values, but for secrets.
func (c config) settings() []console.Setting {
	var list []console.Setting
	defaults := make(map[string]string)
	visitConfig(reflect.ValueOf(defaultConfig()), "", func(key, value string) { defaults[key] = value })
	visitConfig(reflect.ValueOf(c), "", func(key, value string) {
		list = append(list, console.Setting{Key: key, Value: value, Default: defaults[key], Changeable: isChangeable(key)})
	})
	return list
}

// secret are the keys whose values nobody is shown.
var secret = []string{"users", "service.password"}

func visitConfig(v reflect.Value, prefix string, visit func(key, value string)) {
	for i := range v.NumField() {
		key, field := prefix+v.Type().Field(i).Tag.Get("koanf"), v.Field(i)
		switch {
		case field.Kind() == reflect.Struct:
			visitConfig(field, key+".", visit)
		case slices.Contains(secret, key):
			value := ""
			if !field.IsZero() && field.Len() > 0 {
				value = "***"
			}
			visit(key, value)
		case field.Kind() == reflect.Slice:
			parts := make([]string, field.Len())
			for j := range parts {
				parts[j] = fmt.Sprint(field.Index(j))
			}
			visit(key, strings.Join(parts, ","))
		default:
			visit(key, fmt.Sprint(field))
		}
	}
}
