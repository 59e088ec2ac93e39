// Package router is the server that applications connect to: the listener, start-up and
// authentication, the session with its variables, prepared statements and portals, COPY, cancel
// requests, and the bookkeeping of epochs.
//
// It owns what a client sees of the protocol. What runs on the shards is package router/exec's, how a
// statement is routed is the planner's. Errors become what a client sees in one place (Session.fail),
// through router/pgerr.
//
// A session takes one whole request (the frames up to Query, Sync or Flush, or a batch of COPY data) at
// a time and keeps nothing on a goroutine's stack between requests.
//
// It may import router/auth, router/exec, router/schema, router/backend, router/catalogs, router/console, router/metrics, router/notify, router/wire,
// router/pgerr, planner and its subpackages, directory and directory/etcd.
package router
