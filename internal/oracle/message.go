package oracle

import "regexp"

// reached is the table that code may reach: any one of those that it mentions, in whatever schema, so
// which one a message names depends on what other scripts have made.
var reached = regexp.MustCompile(`(may use table|may reach) "?[\w.]+"?`)

// stable is a message that is the same in every run.
func stable(message string) string { return reached.ReplaceAllString(message, "$1 …") }
