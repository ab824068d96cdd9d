//go:build !linux

package srp

import (
	"errors"
	"testing"
)

// counter counts instructions; there is no way to on this system.
type counter struct{}

func newCounter() (*counter, error) { return nil, errors.ErrUnsupported }

func (*counter) close() {}

func (*counter) count(*testing.T, func()) uint64 { return 0 }
