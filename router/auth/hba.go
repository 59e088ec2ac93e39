package auth

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseHBA reads rules in the format of pg_hba.conf. Lines of type local or hostgssenc, and those of the database replication
// alone, are read and never match: there are no such connections to a router. What a router cannot find out (members of a
// role, names of hosts, its own networks, regular expressions, other files) is an error.
func ParseHBA(text string) ([]Rule, error) {
	var rules []Rule
	err := eachLine(text, func(number int, fields []field) error {
		rule, counts, err := parseRule(fields)
		if err != nil {
			return err
		}
		rule.line = number
		if counts {
			rules = append(rules, rule)
		}
		return nil
	})
	return rules, err
}

// parseRule reports too whether the rule can match anything.
func parseRule(fields []field) (rule Rule, counts bool, err error) {
	kind, err := fields[0].single("connection type")
	if err != nil {
		return rule, false, err
	}
	hasAddress := true
	switch kind {
	case "host", "hostnogssenc":
	case "hostssl":
		rule.Transport = OnlyTLS
	case "hostnossl":
		rule.Transport = OnlyPlain
	case "hostgssenc":
	case "local":
		hasAddress = false
	default:
		return rule, false, fmt.Errorf("connection type %q is none of host, hostssl, hostnossl, hostgssenc, hostnogssenc and local", kind)
	}
	columns := []string{"database", "user", "address", "method"}
	if !hasAddress {
		columns = []string{"database", "user", "method"}
	}
	if given := len(fields) - 1; given < len(columns) {
		return rule, false, fmt.Errorf("it ends before the %s", columns[given])
	}
	if counts, err = rule.takeDatabases(fields[1]); err != nil {
		return rule, false, err
	}
	if err := rule.takeUsers(fields[2]); err != nil {
		return rule, false, err
	}
	rest := fields[3:]
	if hasAddress {
		if rest, err = rule.takeAddress(rest); err != nil {
			return rule, false, err
		}
	}
	if len(rest) == 0 {
		return rule, false, fmt.Errorf("it ends before the method")
	}
	method, err := rest[0].single("method")
	if err != nil {
		return rule, false, err
	}
	if kind == "local" || kind == "hostgssenc" {
		return rule, false, nil
	}
	rule.Method = Method(method)
	if err := rule.Method.validate(); err != nil {
		return rule, false, err
	}
	for _, f := range rest[1:] {
		for _, w := range f {
			if err := rule.takeOption(w.text); err != nil {
				return rule, false, err
			}
		}
	}
	return rule, counts, rule.validate()
}

// takeDatabases reports whether the list can match anything.
func (r *Rule) takeDatabases(f field) (bool, error) {
	all := false
	for _, w := range f {
		switch {
		case w.quoted:
			r.Databases = append(r.Databases, w.text)
		case w.text == "all":
			all = true
		case w.text == "sameuser":
			r.SameUser = true
		case w.text == "replication":
		case w.text == "samerole", w.text == "samegroup":
			return false, fmt.Errorf("database %s is not supported: a router does not know who is a member of which role. Name the databases", w.text)
		default:
			if err := w.plainName("database"); err != nil {
				return false, err
			}
			r.Databases = append(r.Databases, w.text)
		}
	}
	some := all || r.SameUser || len(r.Databases) > 0
	if all {
		r.Databases, r.SameUser = nil, false
	}
	return some, nil
}

func (r *Rule) takeUsers(f field) error {
	all := false
	for _, w := range f {
		switch {
		case w.quoted:
			r.Users = append(r.Users, w.text)
		case w.text == "all":
			all = true
		case strings.HasPrefix(w.text, "+"):
			return fmt.Errorf("user %s is not supported: a router does not know who is a member of which role. Name the roles", w.text)
		default:
			if err := w.plainName("user"); err != nil {
				return err
			}
			r.Users = append(r.Users, w.text)
		}
	}
	if all {
		r.Users = nil
	}
	return nil
}

// takeAddress reads an address, its mask if that has a field of its own, and returns what follows.
func (r *Rule) takeAddress(fields []field) ([]field, error) {
	text, err := fields[0].single("address")
	if err != nil {
		return nil, err
	}
	switch {
	case text == "all" && !fields[0][0].quoted:
		return fields[1:], nil
	case text == "samehost", text == "samenet":
		return nil, fmt.Errorf("address %s is not supported. Write the networks", text)
	case strings.Contains(text, "/"):
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("address %q is not a network", text)
		}
		r.Networks = []netip.Prefix{prefix.Masked()}
		return fields[1:], nil
	}
	address, err := netip.ParseAddr(text)
	if err != nil || address.Zone() != "" {
		return nil, fmt.Errorf("address %q is not supported: it is no network, and names of hosts are not looked up", text)
	}
	if len(fields) < 2 {
		return nil, fmt.Errorf("it ends before the mask of address %s", text)
	}
	mask, err := fields[1].single("mask")
	if err != nil {
		return nil, err
	}
	bits, ok := maskBits(address, mask)
	if !ok {
		return nil, fmt.Errorf("mask %q is not one of address %s (is a /%d missing there?)", mask, text, address.BitLen())
	}
	r.Networks = []netip.Prefix{netip.PrefixFrom(address, bits).Masked()}
	return fields[2:], nil
}

// maskBits counts the ones of a mask such as 255.255.0.0, which must stand at its front.
func maskBits(of netip.Addr, text string) (int, bool) {
	mask, err := netip.ParseAddr(text)
	if err != nil || mask.BitLen() != of.BitLen() {
		return 0, false
	}
	bits, ended := 0, false
	for _, b := range mask.AsSlice() {
		for bit := 7; bit >= 0; bit-- {
			one := b>>bit&1 == 1
			if one && ended {
				return 0, false
			}
			if one {
				bits++
			} else {
				ended = true
			}
		}
	}
	return bits, true
}

func (r *Rule) takeOption(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("option %q is not name=value", text)
	}
	switch name {
	case "clientcert":
		r.ClientCert = CertCheck(value)
		if r.ClientCert != VerifyCA && r.ClientCert != VerifyFull {
			return fmt.Errorf("clientcert %q is neither verify-ca nor verify-full", value)
		}
	case "map":
		r.Map = value
	case "clientname":
		if value != "CN" {
			return fmt.Errorf("clientname %s is not supported, CN is", value)
		}
	default:
		return fmt.Errorf("option %s is not known: clientcert, clientname and map are", strconv.Quote(name))
	}
	return nil
}
