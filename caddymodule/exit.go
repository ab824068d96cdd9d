package caddymodule

import (
	"errors"
	"fmt"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// The exit codes of commands.
const (
	// ExitFinding: what was asked for is not as it should be.
	ExitFinding = 1
	// ExitFailed: the command was used wrongly or could not be carried out.
	ExitFailed = 2
)

// Failure is an error with the exit code of the process.
type Failure struct {
	Code int
	Err  error
}

// Error returns the text of the error.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the error.
func (f *Failure) Unwrap() error { return f.Err }

// ErrPrinted is the error of a command that has printed what is wrong.
var ErrPrinted = errors.New("see above")

// WithExitCodes gives c its number of arguments and has the process end with the code of a
// *Failure, with ExitFailed for wrong flags and arguments, and with ExitFailed for any other
// error.
func WithExitCodes(c *cobra.Command, required, most int) *cobra.Command {
	// The errors are printed here, because Caddy prints those with another code than 1 twice.
	c.SilenceErrors, c.SilenceUsage = true, true
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error { return exit(c, run(c, args)) }
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) < required || len(args) > most {
			return exit(c, usage(c, fmt.Errorf("%d arguments", len(args))))
		}
		// Cobra's own check comes later and ends with another code.
		if err := c.ValidateFlagGroups(); err != nil {
			return exit(c, usage(c, err))
		}
		return nil
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return exit(c, usage(c, err)) })
	return c
}

func usage(c *cobra.Command, err error) error {
	return &Failure{ExitFailed, fmt.Errorf("%w; usage: %s", err, c.UseLine())}
}

// exit prints err and returns the error with which the process ends with its code.
func exit(c *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrPrinted) {
		fmt.Fprintln(c.ErrOrStderr(), "Error:", err)
	}
	code := ExitCode(err)
	if code == ExitFinding {
		return err
	}
	// Caddy has no other way to choose the exit code.
	ended := caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(c, nil)
	return errors.Join(err, ended)
}

// ExitCode returns the exit code for err.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Code
	}
	return ExitFailed
}
