// Package admin serves a router's HTTP side: metrics for Prometheus, and whether the router is alive. Later the dashboard.
//
// It owns what is shown there and in which form; the numbers are the router's, as console.State has them. It changes nothing in
// the cluster.
//
// It may import router, router/backend, router/console and router/metrics.
package admin
