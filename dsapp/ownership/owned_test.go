package ownership_test

import (
	"errors"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// The requests of a device are listed with their owners, those of other devices are not.
func TestOwned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Signature, "2", application, device, "backup")
	w.claimed(ownership.Login, "1", application, device, "primary")
	w.claimed(ownership.Login, "3", application, "VDS9999999-1", "primary")
	owned, err := w.Owned(t.Context(), device)
	want := []ownership.Owned{
		{Kind: ownership.Login, Key: "1", Owner: ownership.Owner{Application: application, SerialNumber: device, Instance: "primary"}},
		{Kind: ownership.Signature, Key: "2", Owner: ownership.Owner{Application: application, SerialNumber: device, Instance: "backup"}},
	}
	if err != nil || len(owned) != 2 || owned[0] != want[0] || owned[1] != want[1] {
		t.Errorf("%+v, error %v", owned, err)
	}
	w.store.Fail("Pending", errors.New("down"))
	if _, err := w.Owned(t.Context(), device); !errors.Is(err, ownership.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}
