package operatorcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
)

// configChecked is what `caddy dsapp check` prints with --json.
type configChecked struct {
	OK       bool                  `json:"ok"`
	Findings []caddymodule.Finding `json:"findings"`
}

func newCheckConfigCommand() *cobra.Command {
	var config, adapter string
	var asJSON bool
	c := &cobra.Command{
		Use: "check --config FILE", Short: "Tries a configuration against the real world",
		Long: `Tries a configuration against the real world: names, connections, certificates and
component types of the authentication servers, their clocks, Redis or the file of the
embedded store, secrets, free space and the addresses to listen on. Each finding is one
line that says what to do.

It works without a running gateway and beside one. Run it as the user of the gateway and
with its environment. It sends each authentication server the retrieval of two random
keys and the activation of a random registration, which have no effect but entries in
the server's audit. One-time passwords and notification IDs are not tried. To Redis it
writes values of random names, which it removes again.

The exit status is 0 if there is no finding, 1 if there are findings, and 2 if the
configuration cannot be read.`,
		RunE: func(c *cobra.Command, _ []string) error {
			loaded, file, _, err := caddycmd.LoadConfig(config, adapter)
			if err == nil && file == "" {
				err = errors.New("no configuration: name one with --config")
			}
			if err != nil {
				return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: err}
			}
			return printFindings(c.OutOrStdout(), caddymodule.CheckConfig(c.Context(), loaded), asJSON)
		},
	}
	f := c.Flags()
	f.StringVarP(&config, "config", "c", "", "configuration to try")
	f.StringVarP(&adapter, "adapter", "a", "", "config adapter for --config")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return caddymodule.WithExitCodes(c, 0, 0)
}

// printFindings prints findings. It returns caddymodule.ErrPrinted with caddymodule.ExitFinding if one is a problem.
func printFindings(out io.Writer, all []caddymodule.Finding, asJSON bool) error {
	problems := 0
	for _, x := range all {
		if !x.Note {
			problems++
		}
	}
	var err error
	if asJSON {
		err = json.NewEncoder(out).Encode(configChecked{problems == 0, append([]caddymodule.Finding{}, all...)})
	} else {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, x := range all {
			what := x.Check
			if x.Note {
				what = "note: " + what
			}
			row(w, what, x.Subject+": "+x.Problem)
		}
		if problems == 0 {
			fmt.Fprintln(w, "no problem found")
		}
		err = w.Flush()
	}
	if err != nil {
		return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: err}
	}
	if problems > 0 {
		return &caddymodule.Failure{Code: caddymodule.ExitFinding, Err: caddymodule.ErrPrinted}
	}
	return nil
}
