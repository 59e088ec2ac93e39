package planner

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What grows with the statement grows about linearly: no statement that a client can send keeps the
// planner busy for long.
func TestLargeStatements(t *testing.T) {
	repeat := func(n int, separator, format string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = strings.ReplaceAll(format, "%", fmt.Sprint(i))
		}
		return strings.Join(parts, separator)
	}
	for name, sql := range map[string]string{
		"in list":    "select * from orders where customer_id in (" + repeat(20000, ",", "%") + ")",
		"or":         "select * from orders where " + repeat(5000, " or ", "customer_id = %"),
		"and or":     "select * from orders where " + repeat(1000, " and ", "(customer_id = % or customer_id = 1)"),
		"rows":       "insert into orders (customer_id) values " + repeat(20000, ",", "(%)"),
		"joins":      "select * from orders o0 " + repeat(300, " ", "join orders j% on j%.customer_id = o0.customer_id") + " where o0.customer_id = 5",
		"parens":     "select " + strings.Repeat("(", 500) + "1" + strings.Repeat(")", 500),
		"not":        "select * from orders where " + strings.Repeat("not ", 500) + "paid",
		"subqueries": strings.Repeat("select * from (", 100) + "select * from orders" + repeat(100, "", ") x%") + " where customer_id = 5",
		"exists":     "select * from orders where " + strings.Repeat("exists (select 1 from orders where ", 100) + "paid" + strings.Repeat(")", 100),
		"in nested":  "select * from orders where " + strings.Repeat("customer_id in (select customer_id from orders where ", 100) + "paid" + strings.Repeat(")", 100),
		"with":       "with " + repeat(200, ",", "w% as (select * from orders where customer_id = 5)") + " select * from w0",
		"union":      repeat(300, " union all ", "select % from orders where customer_id = 5"),
	} {
		started := time.Now()
		p, env := New(Config{}), fixtureEnv()
		st := &Statement{Text: sql}
		plan, err := p.Plan(st, nil, env)
		if err == nil {
			_, err = plan.Targets(Args{Map: env.Map, Statement: st})
		}
		if refusal := new(Error); errors.As(err, &refusal) && refusal.Code == codeInternal {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("%s took %v", name, took)
		} else {
			t.Logf("%s took %v", name, took)
		}
	}
}
