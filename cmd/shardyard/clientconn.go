package main

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// serverError finds the error that the server reported in err's chain.
func serverError(err error) (*pgconn.PgError, bool) {
	var reported *pgconn.PgError
	ok := errors.As(err, &reported)
	return reported, ok
}
