package devcluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
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

func portIsFree(port uint16) bool {
	listener, err := listen(port)
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

func listen(port uint16) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(int(port))))
}
