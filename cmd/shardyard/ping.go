package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"
)

// newPingCommand is the health check of containers: it needs no password.
func newPingCommand() *cobra.Command {
	var address string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "ping",
		Short:   "Tell whether a router accepts connections",
		Long:    "Tell whether a router accepts connections: exit status 0 if it answers, 1 if not.",
		Example: "  shardyard ping --address 127.0.0.1:6432",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := ping(address, timeout); err != nil {
				return fmt.Errorf("ping %s: %w", address, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s accepts connections\n", address)
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1:6432", "the router's address")
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Second, "how long to wait")
	return cmd
}

// sslRequestCode is the protocol number of an SSLRequest packet, which every Postgres
// answers with a single byte before it asks who comes.
const sslRequestCode = 80877103

func ping(address string, timeout time.Duration) error {
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	request := binary.BigEndian.AppendUint32(nil, 8)
	request = binary.BigEndian.AppendUint32(request, sslRequestCode)
	if _, err := conn.Write(request); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadByte()
	if err != nil {
		return err
	}
	if answer != 'N' && answer != 'S' {
		return fmt.Errorf("unexpected answer %q to SSLRequest: is it a Postgres port?", answer)
	}
	return nil
}
