package redis_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// The first Store writes the format of the keys. A Store that does not know the format of what is
// there says so and changes nothing.
func TestOtherFormat(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	if _, err := s.SimulationSecret(t.Context(), []byte("sealed secret")); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(server.Command(t, "GET", "dsapp:format")); got != "1" {
		t.Errorf("format %q", got)
	}

	server.FlushAll(t)
	server.Command(t, "SET", "dsapp:format", "2")
	_, err := s.SimulationSecret(t.Context(), []byte("sealed secret"))
	const want = `the keys dsapp:* have format "2", this program knows format 1: run the version that wrote them, or use another key_prefix`
	if !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	if left := keys(t, server); len(left) != 1 {
		t.Errorf("keys %q", left)
	}
}
