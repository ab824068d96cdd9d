package operatorcmd

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
)

// newKey is what `caddy dsapp keys new` and `keys hash` print with --json.
type newKey struct {
	// Key is empty for `keys hash`.
	Key string `json:"key,omitempty"`
	// Hash is the value for the option key_sha256.
	Hash string `json:"key_sha256"`
}

func newKeysCommand() *cobra.Command {
	c := &cobra.Command{Use: "keys", Short: "Commands for API keys"}
	for _, a := range keyCommands {
		c.AddCommand(a.command())
	}
	var asJSON bool
	created := &cobra.Command{
		Use: "new", Short: "Prints a new random API key and its hash",
		Long: `Prints a random API key of 64 hexadecimal digits and its SHA-256, the value for
key_sha256. Neither is stored anywhere: give the key to the application, and put the
hash into the configuration.`,
		RunE: func(c *cobra.Command, _ []string) error {
			b := make([]byte, 32)
			rand.Read(b)
			return printKey(c.OutOrStdout(), hex.EncodeToString(b), true, asJSON)
		},
	}
	hashed := &cobra.Command{
		Use: "hash", Short: "Prints the hash of an API key",
		Long: `Reads an API key from the standard input, up to the end of the line, and prints its
SHA-256, the value for key_sha256.`,
		RunE: func(c *cobra.Command, _ []string) error {
			key, err := readKey(c.InOrStdin())
			if err != nil {
				return err
			}
			return printKey(c.OutOrStdout(), key, false, asJSON)
		},
	}
	for _, sub := range []*cobra.Command{created, hashed} {
		sub.Flags().BoolVar(&asJSON, "json", false, "print JSON")
		c.AddCommand(caddymodule.WithExitCodes(sub, 0, 0))
	}
	return c
}

// readKey reads a key from the first line. A line that is too long is refused without reading
// the rest.
func readKey(in io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(in, apikey.MaxKeyLength+2)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: fmt.Errorf("reading the key: %w", err)}
	}
	key := strings.TrimRight(line, "\r\n")
	if err := apikey.ValidateKey(key); err != nil {
		return "", &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: fmt.Errorf("the key on the standard input %w", err)}
	}
	return key, nil
}

func printKey(out io.Writer, key string, show, asJSON bool) error {
	hash := apikey.Hash(key)
	k := newKey{Hash: hex.EncodeToString(hash[:])}
	if show {
		k.Key = key
	}
	switch {
	case asJSON:
		return json.NewEncoder(out).Encode(k)
	case show:
		_, err := fmt.Fprintf(out, "key         %s\nkey_sha256  %s\n", k.Key, k.Hash)
		return err
	}
	_, err := fmt.Fprintln(out, k.Hash)
	return err
}
