package caddymodule

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

var (
	subcommands        []func() *cobra.Command
	registerSubcommand sync.Once
)

// AddSubcommand adds a subcommand to `caddy dsapp`. The first call registers `caddy dsapp`
// itself. AddSubcommand may be called by init functions only.
func AddSubcommand(create func() *cobra.Command) {
	subcommands = append(subcommands, create)
	registerSubcommand.Do(func() {
		caddycmd.RegisterCommand(caddycmd.Command{
			Name:  "dsapp",
			Usage: "<command>",
			Short: "Commands of the DSAPP gateway",
			CobraFunc: func(c *cobra.Command) {
				for _, create := range subcommands {
					sub := create()
					if sub.HasSubCommands() && !sub.Runnable() {
						refuseUnknown(sub)
					}
					c.AddCommand(sub)
				}
				refuseUnknown(c)
			},
		})
	})
}

// refuseUnknown makes c fail for an unknown subcommand. Without it, only the root command
// does; other commands print their help and succeed. The exit code is ExitFailed: scripts must
// not take a mistyped command for a finding.
func refuseUnknown(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	c.SuggestionsMinimumDistance = 2 // cobra's default for the root command
	c.SilenceErrors, c.SilenceUsage = true, true
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := fmt.Sprintf("unknown command %q for %q", args[0], c.CommandPath())
		if suggestions := c.SuggestionsFor(args[0]); len(suggestions) > 0 {
			text += "\n\nDid you mean this?\n\t" + strings.Join(suggestions, "\n\t") + "\n"
		}
		return exit(c, errors.New(text))
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}
