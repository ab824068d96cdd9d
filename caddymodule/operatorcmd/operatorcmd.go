// Package operatorcmd adds the commands for operators to `caddy dsapp`. They are part
// of every Caddy with the gateway.
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
	caddymodule.AddSubcommand(newStoreCommand)
}

func newStoreCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "store",
		Short: "Commands for the file of the embedded store",
	}
	c.AddCommand(newCheckCommand())
	return c
}

// checkOptions of `caddy dsapp store check`.
type checkOptions struct {
	path   string
	config string
}

func newCheckCommand() *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:   "check",
		Short: "Checks the file of the embedded store",
		Long: `Reads the file of the embedded store from its first page to the last, and tells
what it holds or, with exit status 1, what is wrong with it and what to do. It
changes nothing, and is for a file that no process has open: stop the gateway
first, which reads its file in the same way before it uses it.

Without --path and --config it is the default file of the user who runs the
command, who is often another than the one who runs the gateway.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.check(c.OutOrStdout()) },
	}
	f := c.Flags()
	f.StringVar(&o.path, "path", "", "file to check")
	f.StringVar(&o.config, "config", "", "configuration of Caddy, as JSON, whose file to check")
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

// configuredPath returns the path in a configuration, empty for the default.
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
		return "", fmt.Errorf("%s is not JSON of Caddy; `caddy adapt` makes it of other forms: %w", name, err)
	}
	if config.Apps.DSAPP == nil {
		return "", fmt.Errorf("%s has no app dsapp", name)
	}
	store := config.Apps.DSAPP.Store
	if store.Backend != "" && store.Backend != "embedded" {
		return "", fmt.Errorf("%s has the store %s, which keeps no file to check", name, store.Backend)
	}
	return store.Path, nil
}
