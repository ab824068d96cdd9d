package activation

import (
	"context"
	"fmt"
)

// queueFactor is how many exchanges may wait for each one that is computed.
const queueFactor = 16

// gate limits how many exchanges are computed at once, and how many more wait.
type gate struct {
	places chan struct{} // taken by those that compute or wait
	slots  chan struct{} // taken by those that compute
}

func newGate(n int) *gate {
	return &gate{
		places: make(chan struct{}, n+queueFactor*n),
		slots:  make(chan struct{}, n),
	}
}

// enter takes a place and returns the function that gives it back. If no place is free it
// does not wait: the error is ErrBusy.
func (g *gate) enter() (leave func(), err error) {
	select {
	case g.places <- struct{}{}:
		return func() { <-g.places }, nil
	default:
		return nil, ErrBusy
	}
}

// load returns how many jobs are computed, and how many of those with a place are not.
func (g *gate) load() (computing, waiting int) {
	computing = len(g.slots)
	// A job without a place, that of a registration, takes a slot only.
	return computing, max(0, len(g.places)-computing)
}

// compute runs j as soon as a slot is free, unless ctx ends before.
func (g *gate) compute(ctx context.Context, j job) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("waiting to compute: %w", context.Cause(ctx))
	}
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting to compute: %w", context.Cause(ctx))
	}
	defer func() { <-g.slots }()
	j.run()
	return nil
}
