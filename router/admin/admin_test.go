package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/console"
	"github.com/shardyard/shardyard/router/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func page(t *testing.T, s *console.State, path string) (int, string) {
	t.Helper()
	answer := httptest.NewRecorder()
	Handler(func() *console.State { return s }).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return answer.Code, answer.Body.String()
}

func want(t *testing.T, page string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("no %q", line)
		}
	}
}

func TestHistogramsAreCumulative(t *testing.T) {
	var d metrics.Database
	for _, took := range []time.Duration{time.Microsecond, 200 * time.Microsecond, 3 * time.Second, 2 * time.Minute} {
		d.Stripe(1).Requests[metrics.Single].Observe(took)
	}
	s := &console.State{Databases: []console.DatabaseState{{Name: "shop", Totals: d.Totals()}}, Errors: map[string]uint64{"23": 7}, Version: "v", Router: "r1"}
	s.Times = []backend.ShardTimes{{Shard: "s1", Wait: metrics.Durations{Sum: time.Second}}}
	s.Times[0].Wait.Counts[3] = 2
	_, got := page(t, s, "/metrics")
	name := `shardyard_request_duration_seconds_bucket{database="shop",kind="single",le=`
	want(t, got, name+`"5e-05"} 1`, name+`"0.0001"} 1`, name+`"0.00025"} 2`, name+`"2.5"} 2`, name+`"5"} 3`, name+`"60"} 3`, name+`"+Inf"} 4`,
		`shardyard_request_duration_seconds_count{database="shop",kind="single"} 4`, `shardyard_request_duration_seconds_sum{database="shop",kind="single"} 123.000201`,
		`shardyard_pool_wait_seconds_count{shard="s1"} 2`, `shardyard_pool_wait_seconds_sum{shard="s1"} 1`,
		`shardyard_errors_total{class="23"} 7`, `shardyard_build_info{router="r1",version="v"} 1`)
}

// However many databases and users there are, the page does not grow without a bound, and no number is lost.
func TestLabelsAreBounded(t *testing.T) {
	s := &console.State{}
	for i := range maxPools + 50 {
		s.Pools = append(s.Pools, backend.PoolStats{
			Shard: "s1", Identity: backend.Identity{Database: "shop", User: fmt.Sprint("u", i)}, Limits: backend.Limits{Size: 2}, Held: 1,
			Counters: backend.Counters{Acquired: 3}, Oldest: time.Duration(i) * time.Second,
		})
	}
	var d metrics.Database
	d.Stripe(1).Logins.Add(1)
	for i := range maxDatabases + 3 {
		s.Databases = append(s.Databases, console.DatabaseState{Name: fmt.Sprintf("db%04d", i), Totals: d.Totals()})
		s.Clients = append(s.Clients, console.Client{Identity: backend.Identity{Database: fmt.Sprintf("db%04d", i)}})
	}
	s.Clients = append(s.Clients, console.Client{Identity: backend.Identity{Database: console.Database}})
	_, got := page(t, s, "/metrics")
	want(t, got, `shardyard_pool_size{database="other",shard="s1",user="other"} 100`, `shardyard_pool_size{database="shop",shard="s1",user="u7"} 2`,
		`shardyard_pool_connections{database="other",shard="s1",state="active",user="other"} 50`,
		`shardyard_pool_events_total{database="other",event="acquired",shard="s1",user="other"} 150`,
		`shardyard_pool_oldest_wait_seconds{database="other",shard="s1",user="other"} 1049`,
		`shardyard_logins_total{database="other"} 3`, `shardyard_clients{database="other"} 3`, `shardyard_clients{database="shardyard"} 1`,
		`shardyard_clients{database="db0001"} 1`)
	if n := strings.Count(got, "shardyard_pool_size{"); n != maxPools+1 {
		t.Errorf("%d pools", n)
	}
}

func TestHealth(t *testing.T) {
	if code, body := page(t, &console.State{}, "/health"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, body := page(t, &console.State{Draining: true}, "/health"); code != http.StatusServiceUnavailable || body != "draining\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := page(t, &console.State{}, "/elsewhere"); code != http.StatusNotFound {
		t.Errorf("%d", code)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	s, err := New(Config{Listen: "127.0.0.1:0", State: func() *console.State { return &console.State{} }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Listen: s.Addr().String()}); err == nil {
		t.Fatal("two listen on one address")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.Serve(ctx); close(ended) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + s.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	cancel()
	<-ended
	if _, err := client.Get("http://" + s.Addr().String() + "/health"); err == nil {
		t.Fatal("it still serves")
	}
}
