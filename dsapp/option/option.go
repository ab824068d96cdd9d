// Package option has the checks of configuration options that several packages need, and
// the error type that they return. Each option is checked by the package that uses it,
// which knows the option's name in the JSON configuration. Package caddymodule adds the
// path to the option with In.
package option

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Error says which option is wrong and why. It contains no value that may be secret.
type Error struct {
	// Name is the option's name in the JSON configuration, with the path to it as far as
	// it is known: `max_attempts`, `breaker.failures`, `instances[1].name`.
	Name string
	// Problem says what is wrong with its value, such as "must be from 1 to 100".
	Problem string
}

// Error returns the name and the problem.
func (e *Error) Error() string { return e.Name + ": " + e.Problem }

// Errorf returns an *Error about the option named name.
func Errorf(name, format string, args ...any) error {
	return &Error{Name: name, Problem: fmt.Sprintf(format, args...)}
}

// In returns err as an *Error whose name begins with path. An err that is no *Error becomes
// one about path itself. In returns nil if err is nil.
func In(path string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{Name: path + "." + e.Name, Problem: e.Problem}
	}
	return &Error{Name: path, Problem: err.Error()}
}

// Number checks that v is from least to most.
func Number[N int | int64](name string, v, least, most N) error {
	if v < least || v > most {
		return Errorf(name, "must be from %d to %d", least, most)
	}
	return nil
}

// Either checks that v is one of two values.
func Either[S ~string](name string, v, one, other S) error {
	if v != one && v != other {
		return Errorf(name, "must be %q or %q", one, other)
	}
	return nil
}

// Duration checks that v is from shortest to longest.
func Duration(name string, v, shortest, longest time.Duration) error {
	if v < shortest || v > longest {
		return Errorf(name, `must be from %s to %s; write it as a text such as "30s", a plain number counts nanoseconds`,
			format(shortest), format(longest))
	}
	return nil
}

// Timeout checks that v is from 10 ms to 10 min, the bounds of all options that limit how
// long the gateway waits.
func Timeout(name string, v time.Duration) error {
	return Duration(name, v, 10*time.Millisecond, 10*time.Minute)
}

// format writes a duration as people configure it: 10m where String returns 10m0s.
func format(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

var _ error = (*Error)(nil)
