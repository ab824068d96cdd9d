// Package option holds what the checks of the options of the JSON configuration have
// in common. The package that acts on an option checks it and knows its name;
// caddymodule knows the path to it.
package option

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Error tells what is wrong with an option. It contains no value that may be secret.
type Error struct {
	// Name of the option in the JSON configuration, e.g. `max_attempts`, with what
	// leads to it, e.g. `breaker.failures` or `instances[1].name`.
	Name string
	// Problem with its value, e.g. "must be from 1 to 100".
	Problem string
}

// Error returns name and problem.
func (e *Error) Error() string { return e.Name + ": " + e.Problem }

// Errorf returns an *Error about the option named name.
func Errorf(name, format string, args ...any) error {
	return &Error{Name: name, Problem: fmt.Sprintf(format, args...)}
}

// In returns the *Error of an option that lies at path, or, if err is not about an
// option, one about path itself. It returns nil if err is.
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
			briefly(shortest), briefly(longest))
	}
	return nil
}

// Timeout is Duration with the bounds of all options that bound a wait.
func Timeout(name string, v time.Duration) error {
	return Duration(name, v, 10*time.Millisecond, 10*time.Minute)
}

// briefly writes a duration as it is configured: 10m, where String has 10m0s.
func briefly(d time.Duration) string {
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
