package caddymodule

import (
	"sync"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

var (
	subcommands        []func() *cobra.Command
	registerSubcommand sync.Once
)

// AddSubcommand adds a subcommand to `caddy dsapp`, which exists if it has any.
// It is called by init functions only.
func AddSubcommand(create func() *cobra.Command) {
	subcommands = append(subcommands, create)
	registerSubcommand.Do(func() {
		caddycmd.RegisterCommand(caddycmd.Command{
			Name:  "dsapp",
			Usage: "<command>",
			Short: "Commands of the DSAPP gateway",
			CobraFunc: func(c *cobra.Command) {
				for _, create := range subcommands {
					c.AddCommand(create())
				}
			},
		})
	})
}
