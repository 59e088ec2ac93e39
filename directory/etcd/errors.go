package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Errors that callers branch on. Each carries the SQLSTATE that a client gets.
var (
	// ErrUnavailable: etcd could not be reached, or could not answer, in time. Nothing was changed,
	// unless the error is also ErrOutcomeUnknown.
	ErrUnavailable error = &sentinel{"etcd is unavailable", "57P03"}
	// ErrConflict: others changed the same thing meanwhile, again and again.
	ErrConflict error = &sentinel{"the partition map was changed by another session", "40001"}
	// ErrOutcomeUnknown: the connection to etcd was lost while it took a change, and it could not be
	// asked whether the change was taken.
	ErrOutcomeUnknown error = &sentinel{"the outcome of the change of the partition map is unknown", "08007"}
	// ErrNotFound: there is no such cluster or database.
	ErrNotFound error = &sentinel{"not found in the directory", "3D000"}
	// ErrExists: the cluster or database is there already.
	ErrExists error = &sentinel{"exists already in the directory", "42P04"}
	// ErrCorrupt: stored bytes do not match their checksum or their format.
	ErrCorrupt error = &sentinel{"stored directory is corrupt", "XX001"}
)

type sentinel struct{ message, state string }

func (s *sentinel) Error() string    { return s.message }
func (s *sentinel) SQLState() string { return s.state }

// call runs one request with the request timeout and tells the end of the caller's own context
// from an etcd that does not answer.
func (s *Store) call(ctx context.Context, verb string, request func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, s.config.RequestTimeout)
	defer cancel()
	err := request(bounded)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", verb, context.Cause(ctx))
	case unavailable(err):
		return fmt.Errorf("%s: %w: %w", verb, ErrUnavailable, err)
	default:
		return fmt.Errorf("%s: %w", verb, err)
	}
}

// unavailable says whether err means that etcd could not be asked or has no room for an answer.
func unavailable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	var code codes.Code
	var refusal rpctypes.EtcdError
	if errors.As(err, &refusal) {
		code = refusal.Code()
	} else if answer, ok := status.FromError(err); ok {
		code = answer.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted, codes.Unknown:
		return true
	default:
		return false
	}
}
