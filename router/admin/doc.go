// Package admin serves a router's HTTP side: metrics, health and the dashboard.
//
// It owns what is shown and in which form; the numbers are the router's. It changes nothing in the cluster.
//
// It may import router.
package admin
