// Package compose holds the test of docker-compose.yml: it reads the file as Compose does and
// starts each service's command, with its environment and health check, as local processes, so
// that the file is known to work although no container engine is needed to test it.
//
// It has no code of its own and may import internal/devcluster, for the server binaries.
package compose
