package migrations

import "embed"

// Files holds the migrations, named <version>_<subject>.<up|down>.sql.
//
//go:embed *.sql
var Files embed.FS
