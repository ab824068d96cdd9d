package option

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// An error of each check names the option and says which values are accepted.
func TestChecks(t *testing.T) {
	t.Parallel()
	const hint = `; write it as a text such as "30s", a plain number counts nanoseconds`
	for _, tt := range []struct {
		got  error
		want string
	}{
		{Number("n", 1, 1, 3), ""},
		{Number("n", 3, 1, 3), ""},
		{Number("n", 0, 1, 3), "n: must be from 1 to 3"},
		{Number("n", int64(4), 1, 3), "n: must be from 1 to 3"},
		{Either("e", "a", "a", "b"), ""},
		{Either("e", "b", "a", "b"), ""},
		{Either("e", "", "a", "b"), `e: must be "a" or "b"`},
		{Duration("d", time.Second, time.Second, time.Hour), ""},
		{Duration("d", time.Hour, time.Second, time.Hour), ""},
		{Duration("d", time.Second-1, time.Second, 24*time.Hour), "d: must be from 1s to 24h" + hint},
		{Duration("d", 90*time.Minute, time.Second, 75*time.Minute), "d: must be from 1s to 1h15m" + hint},
		{Timeout("t", 10*time.Millisecond), ""},
		{Timeout("t", 10*time.Minute), ""},
		{Timeout("t", -1), "t: must be from 10ms to 10m" + hint},
		{Timeout("t", 10*time.Minute+1), "t: must be from 10ms to 10m" + hint},
	} {
		if tt.got == nil && tt.want == "" {
			continue
		}
		if tt.got == nil || tt.got.Error() != tt.want {
			t.Errorf("got %v, want %q", tt.got, tt.want)
		}
	}
}

// In takes the name from the *Error itself. The text of errors that wrap it is not part of
// the name.
func TestIn(t *testing.T) {
	t.Parallel()
	if err := In("a", nil); err != nil {
		t.Errorf("error %v", err)
	}
	for want, err := range map[string]error{
		"a.b[0].c: must be: so": In("a", In("b[0]", Errorf("c", "must be: %s", "so"))),
		"a.b: must be":          In("a", fmt.Errorf("b: %w", Errorf("b", "must be"))),
		"a: b: is gone":         In("a", errors.New("b: is gone")),
	} {
		wrong, ok := errors.AsType[*Error](err)
		if !ok || err.Error() != want || wrong.Name+": "+wrong.Problem != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
