package devcluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// Ports are taken below the ranges that Linux (32768 up) and macOS (49152 up) give to outgoing connections, so that
// none of those takes a server's port while the server is down.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// freePorts finds n different loopback ports that nobody listens on. Somebody else may take one before a server
// does; who starts the server then asks for another.
func freePorts(n int) (ports []uint16, err error) {
	var held []net.Listener
	defer func() {
		for _, listener := range held {
			err = errors.Join(err, listener.Close())
		}
	}()
	for attempts := 0; len(ports) < n; attempts++ {
		if attempts > 100*(n+1) {
			return nil, fmt.Errorf("find %d free ports between %d and %d: gave up after %d attempts", n, lowestPort, highestPort, attempts)
		}
		port := uint16(lowestPort + rand.IntN(highestPort-lowestPort))
		listener, err := listen(port)
		if err != nil {
			continue
		}
		held = append(held, listener)
		ports = append(ports, port)
	}
	return ports, nil
}

// staysTaken tells whether somebody listens on a port, and goes on doing so for a while. The while matters: any
// process that this one forks holds copies of our closed listeners until it executes its program.
func staysTaken(ctx context.Context, port uint16) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 50 {
		if listener, err := listen(port); err == nil {
			return listener.Close() != nil
		}
		select {
		case <-ctx.Done():
			return true
		case <-tick.C:
		}
	}
	return true
}

// onPort starts something that listens on a port and returns the port that it got at last. Nobody asks beforehand
// whether the port is free: only the attempt tells. After a failure on a port that somebody holds it goes to another
// if mayMove is set, and else tries again until ctx ends; after any other failure it tries a few times more: whoever held the
// port may be gone already.
func onPort(ctx context.Context, port uint16, mayMove bool, start func(port uint16) error) (uint16, error) {
	const attemptsOnFreePort = 5
	for failures := 0; ; {
		err := start(port)
		if err == nil {
			return port, nil
		}
		taken := staysTaken(ctx, port)
		if ctx.Err() != nil {
			return port, err
		}
		if !taken {
			if failures++; failures == attemptsOnFreePort {
				return port, err
			}
			continue
		}
		if mayMove {
			ports, portErr := freePorts(1)
			if portErr != nil {
				return port, errors.Join(err, portErr)
			}
			port = ports[0]
		}
	}
}

func listen(port uint16) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(int(port))))
}
