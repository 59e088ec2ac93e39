//go:build !linux

package router

import (
	"context"
	"errors"
)

// parker needs epoll.
type parker struct{}

func newParker(*Server) (*parker, error) {
	return nil, errors.New("FreshGoroutine needs Linux")
}

func (p *parker) run(context.Context)                  {}
func (p *parker) park(context.Context, *Session) error { return nil }
func (p *parker) unpark(context.Context, *Session)     {}
