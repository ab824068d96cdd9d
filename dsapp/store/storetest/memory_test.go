package storetest_test

import (
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// The store that services are tested with keeps the contracts of stores.
func TestMemory(t *testing.T) {
	t.Parallel()
	t.Run("activation", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(*testing.T) activation.Store { return storetest.NewMemory(time.Now) })
	})
	t.Run("ownership", func(t *testing.T) {
		t.Parallel()
		storetest.RunOwnership(t, func(*testing.T) ownership.Store { return storetest.NewMemory(time.Now) })
	})
	t.Run("repeats", func(t *testing.T) {
		t.Parallel()
		storetest.RunRepeats(t, func(*testing.T) storetest.RepeatStore { return storetest.NewMemory(time.Now) })
	})
}
