package operatorcmd

import (
	"errors"
	"fmt"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// withExitCodes gives c its number of arguments and has the process end with the code of a
// *failure, with exitFailed for wrong flags and arguments, and with exitFailed for any other
// error.
func withExitCodes(c *cobra.Command, required, most int) *cobra.Command {
	// The errors are printed here, because Caddy prints those with another code than 1 twice.
	c.SilenceErrors, c.SilenceUsage = true, true
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error { return exit(c, run(c, args)) }
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) < required || len(args) > most {
			return exit(c, usage(c, fmt.Errorf("%d arguments", len(args))))
		}
		return nil
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return exit(c, usage(c, err)) })
	return c
}

func usage(c *cobra.Command, err error) error {
	return &failure{exitFailed, fmt.Errorf("%w; usage: %s", err, c.UseLine())}
}

// exit prints err and returns the error with which the process ends with its code.
func exit(c *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, errPrinted) {
		fmt.Fprintln(c.ErrOrStderr(), "Error:", err)
	}
	code := codeOf(err)
	if code == exitFinding {
		return err
	}
	// Caddy has no other way to choose the exit code.
	ended := caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(c, nil)
	return errors.Join(err, ended)
}

// codeOf returns the exit code for err.
func codeOf(err error) int {
	if err == nil {
		return 0
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return exitFailed
}
