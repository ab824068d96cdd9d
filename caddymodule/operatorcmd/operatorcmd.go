// Package operatorcmd adds the commands for operators to `caddy dsapp`. Every Caddy with the
// gateway has them.
package operatorcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

func init() {
	for _, a := range adminCommands {
		caddymodule.AddSubcommand(a.command)
	}
	caddymodule.AddSubcommand(newRegistrationsCommand)
	caddymodule.AddSubcommand(newKeysCommand)
	caddymodule.AddSubcommand(newCheckConfigCommand)
	caddymodule.AddSubcommand(newStoreCommand)
	caddymodule.AddSubcommand(newOpenAPICommand)
	caddymodule.AddSubcommand(newProfileCommand)
}

func newRegistrationsCommand() *cobra.Command {
	c := &cobra.Command{Use: "registrations", Short: "Commands for pending registrations"}
	for _, a := range registrationCommands {
		c.AddCommand(a.command())
	}
	return c
}

func newStoreCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "store",
		Short: "Commands for the file of the embedded store",
	}
	c.AddCommand(newCheckCommand())
	return c
}

// checkOptions are the flags of `caddy dsapp store check`.
type checkOptions struct {
	path   string
	config string
}

func newCheckCommand() *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:   "check",
		Short: "Checks the file of the embedded store",
		Long: `Reads the whole file of the embedded store and prints what it contains. If the
file is damaged, the command prints what is wrong and what to do, with exit status
1. It changes nothing.

No process may have the file open: stop the gateway first. The gateway itself
checks the file in the same way before it uses it.

Without --path and --config, the command checks the default file of the user who
runs it. That is often not the user who runs the gateway.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.check(c.OutOrStdout()) },
	}
	f := c.Flags()
	f.StringVar(&o.path, "path", "", "file to check")
	f.StringVar(&o.config, "config", "", "JSON configuration of Caddy; check the file that it names")
	c.MarkFlagsMutuallyExclusive("path", "config")
	return c
}

func (o *checkOptions) check(out io.Writer) error {
	configured := o.path
	if o.config != "" {
		var err error
		if configured, err = configuredPath(o.config); err != nil {
			return fmt.Errorf("--config: %w", err)
		}
	}
	path, err := caddymodule.EmbeddedPath(configured)
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	c, err := embedded.Check(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s does not exist: name the file with --path, or the configuration with --config", path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Fprintf(out, "%s is sound: %d registrations, %d claims, %d records of unknown identifiers, %d bytes\n",
		path, c.Registrations, c.Claims, c.Simulated, c.Size)
	return nil
}

// configuredPath returns the path of the embedded store in a configuration file. It is empty
// if the configuration uses the default.
func configuredPath(name string) (string, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	var config struct {
		Apps struct {
			DSAPP *struct {
				Store struct {
					Backend string `json:"backend"`
					Path    string `json:"path"`
				} `json:"store"`
			} `json:"dsapp"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return "", fmt.Errorf("%s is not a JSON configuration of Caddy; `caddy adapt` converts other formats to JSON: %w", name, err)
	}
	if config.Apps.DSAPP == nil {
		return "", fmt.Errorf("%s has no app dsapp", name)
	}
	store := config.Apps.DSAPP.Store
	if store.Backend != "" && store.Backend != "embedded" {
		return "", fmt.Errorf("%s has the store %s, which has no file to check", name, store.Backend)
	}
	return store.Path, nil
}
