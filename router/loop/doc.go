// Package loop runs sessions in an event loop: one goroutine waits with epoll for all their connections and
// switches to the session whose connection has something to read, without the scheduler. A session is a Task: a
// coroutine, so it is written like any blocking code. While it is on the loop its waits for a Conn give the loop
// back; before it waits for anything else it calls Leave, and is an ordinary goroutine from then on, until Enter.
// A task that blocks the loop all the same costs the others a short pause: a watchdog moves the loop to
// another goroutine.
//
// It needs Linux. Elsewhere New fails, and sessions run on goroutines.
//
// It imports nothing of ours.
package loop
