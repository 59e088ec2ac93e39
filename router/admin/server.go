package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/shardyard/shardyard/router/console"
)

// Config configures a Server.
type Config struct {
	// Listen is the address, host:port. Required.
	Listen string
	// State takes the present state of the router. Required.
	State func() *console.State
	// Log gets what nobody is told otherwise. Defaults to none.
	Log *slog.Logger
}

// Server answers GET /metrics and GET /health. Nobody has to prove who he is, so it belongs on an inner network.
type Server struct {
	listener net.Listener
	http     *http.Server
	log      *slog.Logger
}

// New binds the listener. Nobody is served before Serve.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics on %s: %w", cfg.Listen, err)
	}
	return &Server{
		listener: listener, log: cfg.Log,
		http: &http.Server{Handler: Handler(cfg.State), ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10},
	}, nil
}

// Handler answers the requests.
func Handler(state func() *console.State) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{state}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second}))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if state().Draining {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "draining\n")
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	return mux
}

// Addr is the address of the listener.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close closes the listener of a Server that is not going to serve.
func (s *Server) Close() error { return s.listener.Close() }

// closeTimeout bounds the answers under way when a Server ends.
const closeTimeout = 2 * time.Second

// Serve serves until ctx ends. It returns when every goroutine of the server has ended.
func (s *Server) Serve(ctx context.Context) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if s.http.Shutdown(within) != nil {
			_ = s.http.Close()
		}
	})
	err := s.http.Serve(s.listener)
	if stop() {
		s.log.Error("metrics are not served any more", "error", err)
		return
	}
	<-ended
	if !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("metrics were not served to the end", "error", err)
	}
}
