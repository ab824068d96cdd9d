package operatorcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
)

// adminOptions are the flags of commands that ask a running gateway.
type adminOptions struct {
	address, config, adapter string
	json                     bool
}

// adminCommand is a command that asks a running gateway.
type adminCommand struct {
	use, short, long string
	// args is the greatest number of arguments, required the least.
	required, args int
	method         string
	// path returns the path at the admin endpoint.
	path func(args []string) string
	// show prints the answer, as JSON or as a table, and returns the exit code.
	show func(w io.Writer, answer []byte, asJSON bool) (int, error)
}

// adminCommands are the commands that ask a running gateway.
var adminCommands = []adminCommand{
	{
		use: "status", short: "Shows what runs and how it is",
		long:   "Shows the versions, the configuration in force and the state of a running gateway.",
		method: http.MethodGet, path: fixed("/dsapp/status"), show: table(printStatus),
	},
	{
		use: "health", short: "Shows whether the node is ready",
		long: `Shows the state of the node and the checks that it is made of. The exit status is 0 if
the node is ready or degraded, and 1 if it is unready or draining.`,
		method: http.MethodGet, path: fixed("/dsapp/status"), show: judged(printHealth, readiness),
	},
	{
		use: "instances", short: "Shows the authentication servers",
		long:   "Shows the authentication servers as this node knows them.",
		method: http.MethodGet, path: fixed("/dsapp/instances"), show: table(printInstances),
	},
	{
		use: "requests SERIAL_NUMBER", short: "Shows the pending requests of a device",
		long: `Shows the pending logins and signatures that a device has retrieved, with the
application and the authentication server. Of the keys, it shows the beginning only.

SERIAL_NUMBER is that of the device, as in the audit log. With a multi-device licence it
ends with the number of the device, such as VDS1000000-1.`,
		required: 1, args: 1,
		method: http.MethodGet, path: func(args []string) string { return "/dsapp/requests?serial_number=" + url.QueryEscape(args[0]) },
		show: table(printRequests),
	},
	{
		use: "drain [INSTANCE]", short: "Drains the node or an authentication server",
		long: `Without an argument, makes the node unready, so that a load balancer sends it no
more requests. The node goes on serving what it gets.

With the name of an authentication server, this node sends it no more registrations
and one-time passwords. What began there goes on there.

Both hold for this node until 'undrain' or a restart. They survive reloads.`,
		args: 1, method: http.MethodPost, path: drainPath("drain"), show: table(printDrained),
	},
	{
		use: "undrain [INSTANCE]", short: "Ends what drain began",
		long: "Ends what 'drain' with the same argument began.",
		args: 1, method: http.MethodPost, path: drainPath("undrain"), show: table(printDrained),
	},
	{
		use: "seal-usage", short: "Counts the stored values by the key that sealed them",
		long: `Counts, in the whole store, the values that each sealing key sealed. When an old key
has no values any more, it can be removed from the configuration. The exit status is 1
if there are values that no configured key sealed: they cannot be used.

Redis servers permit this if the gateway's user may run the command scan. Handshakes of
the embedded store are in memory and are not counted.`,
		method: http.MethodGet, path: fixed("/dsapp/seal-usage"), show: judged(printSealing, unknownKeys),
	},
}

// registrationCommands are the subcommands of `caddy dsapp registrations`.
var registrationCommands = []adminCommand{
	{
		use: "show IDENTIFIER", short: "Shows the state of a registration",
		long: `Shows kind, state, counters, end and authentication server of a registration. The exit
status is 1 if there is none.`,
		required: 1, args: 1, method: http.MethodGet, path: registrationPath, show: table(printRegistration),
	},
	{
		use: "burn IDENTIFIER", short: "Makes a registration unusable",
		long: `Makes a registration unusable at once, as if all its attempts had been used, and wipes
its secrets. The user has to register again. The exit status is 1 if there is none.`,
		required: 1, args: 1, method: http.MethodDelete, path: registrationPath, show: table(printBurned),
	},
}

// keyCommands are the subcommands of `caddy dsapp keys` that ask a running gateway.
var keyCommands = []adminCommand{{
	use: "list", short: "Shows the API keys in force",
	long: `Shows the API keys of the running gateway: name, class, address ranges, the first digits
of the hash, and when this node last got a request with the key.`,
	method: http.MethodGet, path: fixed("/dsapp/keys"), show: table(printKeys),
}}

func fixed(path string) func([]string) string { return func([]string) string { return path } }

func registrationPath(args []string) string {
	return "/dsapp/registrations/" + url.PathEscape(args[0])
}

func drainPath(verb string) func([]string) string {
	return func(args []string) string {
		if len(args) == 0 {
			return "/dsapp/" + verb
		}
		return "/dsapp/instances/" + url.PathEscape(args[0]) + "/" + verb
	}
}

// command returns the command for cobra.
func (a adminCommand) command() *cobra.Command {
	var o adminOptions
	c := &cobra.Command{
		Use: a.use, Short: a.short,
		Long: a.long + "\n\nThe gateway is found by its admin endpoint, as with `caddy reload`. Name the endpoint with\n--address or --config, unless it is localhost:2019.",
		RunE: func(c *cobra.Command, args []string) error { return a.run(c.OutOrStdout(), o, args) },
	}
	f := c.Flags()
	f.StringVar(&o.address, "address", "", "address of the admin endpoint, such as localhost:2019 or unix//run/caddy.sock")
	f.StringVarP(&o.config, "config", "c", "", "configuration that has the address of the admin endpoint")
	f.StringVarP(&o.adapter, "adapter", "a", "", "config adapter for --config")
	f.BoolVar(&o.json, "json", false, "print the answer as JSON")
	c.MarkFlagsMutuallyExclusive("address", "config")
	return caddymodule.WithExitCodes(c, a.required, a.args)
}

// run asks the gateway and prints its answer.
func (a adminCommand) run(out io.Writer, o adminOptions, args []string) error {
	address, err := caddycmd.DetermineAdminAPIAddress(o.address, nil, o.config, o.adapter)
	if err != nil {
		return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: fmt.Errorf("finding the admin endpoint: %w", err)}
	}
	answer, err := ask(address, a.method, a.path(args))
	if err != nil {
		return err
	}
	code, err := a.show(out, answer, o.json)
	switch {
	case err != nil:
		return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: err}
	case code != 0:
		return &caddymodule.Failure{Code: code, Err: caddymodule.ErrPrinted}
	}
	return nil
}

// refused matches the error of caddycmd.AdminAPIRequest for an answer that is an error.
var refused = regexp.MustCompile(`(?s)^caddy responded with error: HTTP (\d+): (.*)$`)

// ask sends a request to the admin endpoint and returns the answer.
func ask(address, method, path string) ([]byte, error) {
	response, err := caddycmd.AdminAPIRequest(address, method, path, nil, nil)
	if err != nil {
		return nil, refusal(address, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: fmt.Errorf("reading the answer of %s: %w", address, err)}
	}
	return answer, nil
}

// refusal returns the error for a request without a good answer.
func refusal(address string, err error) error {
	m := refused.FindStringSubmatch(err.Error())
	if m == nil {
		return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: fmt.Errorf("no gateway answers at the admin endpoint %s: start it, name another one with --address or --config, "+
			"or run the command as the user of the gateway if permission is denied (%w)", address, err)}
	}
	var body struct {
		Error string `json:"error"`
	}
	if json.Unmarshal([]byte(m[2]), &body) != nil || body.Error == "" {
		if m[1] == strconv.Itoa(http.StatusNotFound) {
			return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: fmt.Errorf("the Caddy at %s has no such route: is it a gateway of this version?", address)}
		}
		body.Error = strings.TrimSpace(m[2])
	}
	if m[1] == strconv.Itoa(http.StatusNotFound) {
		return &caddymodule.Failure{Code: caddymodule.ExitFinding, Err: errors.New(body.Error)}
	}
	return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: errors.New(body.Error)}
}

// table shows an answer that says nothing bad.
func table[T any](rows func(io.Writer, T)) func(io.Writer, []byte, bool) (int, error) {
	return judged(rows, func(T) int { return 0 })
}

// judged shows an answer and determines the exit code from it.
func judged[T any](rows func(io.Writer, T), judge func(T) int) func(io.Writer, []byte, bool) (int, error) {
	return func(out io.Writer, answer []byte, asJSON bool) (int, error) {
		var decoded T
		if err := json.Unmarshal(answer, &decoded); err != nil {
			return 0, fmt.Errorf("the answer is none of a gateway of this version: %w", err)
		}
		if asJSON {
			_, err := fmt.Fprintf(out, "%s\n", strings.TrimSpace(string(answer)))
			return judge(decoded), err
		}
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		rows(w, decoded)
		return judge(decoded), w.Flush()
	}
}

// row prints cells as one row.
func row(w io.Writer, cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		switch v := c.(type) {
		case time.Time:
			texts[i] = formatTime(v)
		default:
			texts[i] = fmt.Sprint(v)
		}
		// A text from the configuration must not move the columns.
		texts[i] = strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, texts[i])
	}
	fmt.Fprintln(w, strings.TrimRight(strings.Join(texts, "\t"), "\t"))
}

// formatTime returns a time as it is printed.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func printStatus(w io.Writer, s caddymodule.AdminStatus) {
	row(w, "VERSION", s.Version)
	row(w, "CADDY", s.Caddy)
	row(w, "STARTED", s.Started)
	row(w, "LOADED", s.Loaded)
	row(w, "EXCHANGE", s.Exchange)
	row(w, "STORE", s.Store)
	row(w, "INSTANCES", fmt.Sprintf("%d, %s", s.Instances, s.Deployment))
	row(w, "API KEYS", s.Keys)
	row(w, "STATE", s.State)
}

func printHealth(w io.Writer, s caddymodule.AdminStatus) {
	row(w, "STATE", s.State)
	for _, c := range s.Checks {
		result, since := "ok", ""
		if !c.OK {
			result = "failing"
		}
		if !c.Since.IsZero() {
			since = "since " + formatTime(c.Since)
		}
		row(w, c.Name, result, since, c.Detail)
	}
}

// readiness returns the exit code for the state of the node.
func readiness(s caddymodule.AdminStatus) int {
	if s.Ready {
		return 0
	}
	return caddymodule.ExitFinding
}

func printInstances(w io.Writer, all []caddymodule.AdminInstance) {
	row(w, "NAME", "URL", "STATE", "BREAKER", "IN USE", "QUEUED", "LAST REACHED", "LAST LOST")
	for _, in := range all {
		row(w, in.Name, in.URL, in.State, in.Breaker, in.InUse, in.Queued, in.LastReached, in.LastLost)
	}
}

func printRegistration(w io.Writer, r caddymodule.AdminRegistration) {
	row(w, "IDENTIFIER", r.Identifier)
	row(w, "KIND", r.Kind)
	row(w, "STATE", r.State)
	row(w, "EXPIRES", r.Expires)
	row(w, "INSTANCE", r.Instance)
	row(w, "ATTEMPTS", fmt.Sprintf("%d of %d, %d in flight", r.Attempts, r.MaxAttempts, r.InFlight))
	row(w, "ACTIVATIONS", fmt.Sprintf("%d of %d", r.Activations, r.MaxActivations))
	row(w, "DEVICES", r.Devices)
	row(w, "CONFIRMATIONS", fmt.Sprintf("%d of %d", r.Confirmations, r.MaxAttempts))
}

func printBurned(w io.Writer, r struct{ Identifier string }) {
	fmt.Fprintf(w, "%s is burned; the user has to register again\n", r.Identifier)
}

func printRequests(w io.Writer, all []caddymodule.AdminRequest) {
	if len(all) == 0 {
		fmt.Fprintln(w, "the device has retrieved no request that is pending")
		return
	}
	row(w, "KIND", "KEY", "APPLICATION", "INSTANCE")
	for _, r := range all {
		row(w, r.Kind, r.Key, r.Application, r.Instance)
	}
}

func printDrained(w io.Writer, d struct {
	Instance string
	Drained  bool
},
) {
	what, state := "the node", "drained"
	if d.Instance != "" {
		what = "instance " + d.Instance
	}
	if !d.Drained {
		state = "not drained"
	}
	fmt.Fprintf(w, "%s is %s\n", what, state)
}

func printKeys(w io.Writer, all []caddymodule.AdminKey) {
	row(w, "NAME", "CLASS", "HASH", "LAST USED", "ALLOWED FROM")
	for _, k := range all {
		row(w, k.Name, k.Class, k.Hash, k.LastUsed, strings.Join(k.Allow, " "))
	}
}

func printSealing(w io.Writer, s caddymodule.AdminSealing) {
	row(w, "KEY", "ID", "VALUES")
	for _, k := range s.Keys {
		row(w, k.Key, k.ID, k.Values)
	}
	if s.Unknown > 0 {
		row(w, "(no configured key)", "", s.Unknown)
	}
}

// unknownKeys returns the exit code for an answer about sealing keys.
func unknownKeys(s caddymodule.AdminSealing) int {
	if s.Unknown == 0 {
		return 0
	}
	return caddymodule.ExitFinding
}
