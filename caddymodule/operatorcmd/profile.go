package operatorcmd

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/solve"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

func newProfileCommand() *cobra.Command {
	c := &cobra.Command{Use: "profile", Short: "Commands that find the profile of phones"}
	c.AddCommand(newSolveCommand(), newCompareCommand(), newRecordCommand())
	return c
}

// maxCaptures is the greatest number of captures of one command.
const maxCaptures = 32

// captureFiles are the words with which the help of commands describes captures.
const captureFiles = `A capture is a JSON file with one exchange of a test user, as docs/profiles.md
describes. It holds the password: a file that others can use is refused, and no value
of it is printed or logged.`

// solved is what `caddy dsapp profile solve` prints with --json.
type solved struct {
	*solve.Report
	// Configuration is the value of activation.profile, absent if there is none.
	Configuration json.RawMessage `json:"configuration,omitempty"`
	// Tested says that the gateway's own code has carried out an exchange with the profile.
	Tested bool `json:"tested"`
}

func newSolveCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "solve CAPTURE...", Short: "Finds the profile that explains recorded exchanges",
		Long: `Finds the options of the profile srp6a with which a gateway computes what a phone has
computed in a recorded exchange. It goes through all known variants, stage by stage,
and prints what each stage found, the profile for the configuration, what the captures
cannot tell apart, and what to record to settle that. Several captures of phones with
the same library settle more than one.

` + captureFiles + `

The exit status is 0 if every option is found, 1 if a stage is not explained, if an
option is open or if no gateway may use the profile, and 2 if a capture cannot be read.`,
		RunE: func(c *cobra.Command, args []string) error {
			captures, err := readCaptures(args)
			if err != nil {
				return err
			}
			progress, clearLine := progressOn(c.ErrOrStderr())
			r, err := solve.Solve(c.Context(), captures, solve.Options{Progress: progress})
			clearLine()
			if err != nil {
				return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: err}
			}
			return printSolved(c.OutOrStdout(), r, captures, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return caddymodule.WithExitCodes(c, 1, maxCaptures)
}

func readCaptures(names []string) ([]solve.Capture, error) {
	captures := make([]solve.Capture, len(names))
	for i, name := range names {
		var err error
		if captures[i], err = solve.ReadFile(name); err != nil {
			return nil, &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: err}
		}
	}
	return captures, nil
}

// progressOn returns a function that shows the progress of a search on a terminal, and one that
// clears the line again. Both do nothing if w is none.
func progressOn(w io.Writer) (progress func(capture, done, all int), clearLine func()) {
	f, ok := w.(*os.File)
	if ok {
		info, err := f.Stat()
		ok = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	if !ok {
		return nil, func() {}
	}
	return func(capture, done, all int) {
		if done%8 == 0 {
			fmt.Fprintf(w, "\rcapture %d: %d of %d candidates ", capture+1, done, all)
		}
	}, func() { fmt.Fprintf(w, "\r%s\r", strings.Repeat(" ", 60)) }
}

// printSolved prints what was found. Its error has the exit code.
func printSolved(out io.Writer, r *solve.Report, captures []solve.Capture, asJSON bool) error {
	s := solved{Report: r}
	var tested error
	if r.Profile != nil {
		s.Configuration = configuration(*r.Profile)
		if r.Refused == "" {
			tested = solve.Try(captures[0], *r.Profile)
			s.Tested = tested == nil
		}
	}
	if asJSON {
		if err := json.NewEncoder(out).Encode(s); err != nil {
			return err
		}
	} else if err := s.print(out); err != nil {
		return err
	}
	switch {
	case tested != nil:
		return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: tested}
	case !r.Complete() || r.Refused != "":
		return &caddymodule.Failure{Code: caddymodule.ExitFinding, Err: caddymodule.ErrPrinted}
	}
	return nil
}

// configuration returns the value of activation.profile for a variant: the name of a built-in
// profile if it computes the same.
func configuration(v variant.Variant) json.RawMessage {
	complete, err := v.Complete()
	if err != nil {
		panic("operatorcmd: " + err.Error()) // the preset exists
	}
	var value any = struct {
		Module string `json:"module"`
		variant.Variant
	}{"srp6a", v}
	for _, p := range srp.Profiles() {
		if reflect.DeepEqual(p.Variant(), complete) {
			value = p.Name()
		}
	}
	encoded, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		panic("operatorcmd: " + err.Error()) // there are texts only
	}
	return encoded
}

// print prints stages, differences and the profile.
func (s solved) print(out io.Writer) error {
	var complete variant.Variant
	if s.Profile != nil {
		var err error
		if complete, err = s.Profile.Complete(); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, st := range s.Stages {
		found := ""
		if st.Outcome == solve.Explained {
			found = strings.Join(settled(complete, st.Options), ", ")
		}
		row(w, st.Name, cmp.Or(found, string(st.Outcome)), compared(st.Tried))
		if st.Advice != "" {
			row(w, "", st.Advice, "")
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if s.Profile == nil {
		fmt.Fprintln(out, "\nNo profile is found.")
		return nil
	}
	if len(s.Differences) > 0 {
		fmt.Fprintln(out, "\nThese choices explain the captures as well, also together:")
		for _, d := range s.Differences {
			for _, o := range d.Others {
				fmt.Fprintf(out, "  %s = %s instead of %s\n    differs if %s%s; %s\n",
					d.Option, strings.Join(o.Choice, " "), strings.Join(d.Chosen, " "), o.When, chance(o.Probability), o.Record)
			}
		}
	}
	if len(s.Open) > 0 {
		fmt.Fprintf(out, "\nNothing recorded decides %s: the profile has the default.\n", strings.Join(s.Open, ", "))
	}
	fmt.Fprintf(out, "\nThe profile, the value of activation.profile:\n\n%s\n\n", s.Configuration)
	switch {
	case s.Refused != "":
		fmt.Fprintf(out, "No gateway may use it: %s\n", s.Refused)
	case s.Tested:
		fmt.Fprintln(out, "Tested: the gateway has carried out an exchange with it.")
	}
	return nil
}

// settled returns options with their values.
func settled(v variant.Variant, options []string) (words []string) {
	for _, d := range variant.Dimensions {
		if value := d.Get(v); slices.Contains(options, d.Name) && len(value) > 0 {
			words = append(words, d.Name+" = "+strings.Join(value, " "))
		}
	}
	return words
}

func compared(tried int) string {
	if tried == 0 {
		return ""
	}
	return fmt.Sprintf("(%d values compared)", tried)
}

func chance(p float64) string {
	if p == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.3g %% of exchanges)", 100*p)
}

// profileOptions are the flags that name a profile.
type profileOptions struct{ profile, config, adapter string }

func (o *profileOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.profile, "profile", "", "file with the value of activation.profile in JSON")
	f.StringVarP(&o.config, "config", "c", "", "configuration with the profile")
	f.StringVarP(&o.adapter, "adapter", "a", "", "config adapter for --config")
	c.MarkFlagsMutuallyExclusive("profile", "config")
}

// namedVariant is the variant of a configured profile.
type namedVariant struct {
	name string
	variant.Variant
}

// read returns the variants that the flags name: those of all profiles of a configuration.
func (o *profileOptions) read() ([]namedVariant, error) {
	var all []json.RawMessage
	switch {
	case o.profile != "":
		content, err := os.ReadFile(o.profile)
		if err != nil {
			return nil, err
		}
		all = []json.RawMessage{content}
	case o.config != "":
		content, _, _, err := caddycmd.LoadConfig(o.config, o.adapter)
		if err != nil {
			return nil, err
		}
		if all, err = configuredProfiles(content); err != nil {
			return nil, fmt.Errorf("%s %w", o.config, err)
		}
	default:
		return nil, errors.New("no profile: name one with --profile or --config")
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no profile", o.config)
	}
	variants := make([]namedVariant, len(all))
	for i, raw := range all {
		var err error
		if variants[i], err = variantOf(raw); err != nil {
			return nil, fmt.Errorf("%s: profile: %w", cmp.Or(o.profile, o.config), err)
		}
	}
	return variants, nil
}

// configuredProfiles returns the profiles of a configuration of Caddy.
func configuredProfiles(config []byte) ([]json.RawMessage, error) {
	var c struct {
		Apps struct {
			DSAPP *struct {
				Activation struct {
					Profile  json.RawMessage   `json:"profile"`
					Profiles []json.RawMessage `json:"profiles"`
				} `json:"activation"`
			} `json:"dsapp"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("is no configuration of Caddy: %w", err)
	}
	switch {
	case c.Apps.DSAPP == nil:
		return nil, errors.New("has no app dsapp")
	case c.Apps.DSAPP.Activation.Profiles != nil:
		return c.Apps.DSAPP.Activation.Profiles, nil
	case c.Apps.DSAPP.Activation.Profile != nil:
		return []json.RawMessage{c.Apps.DSAPP.Activation.Profile}, nil
	}
	return []json.RawMessage{json.RawMessage(`"` + srp.DefaultProfile + `"`)}, nil
}

// variantOf returns the variant of a profile in JSON: the name of one, or a module.
func variantOf(raw json.RawMessage) (namedVariant, error) {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		p, err := srp.LookupProfile(name)
		if err != nil {
			return namedVariant{}, err
		}
		return namedVariant{name, p.Variant()}, nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return namedVariant{}, errors.New("must be a name or an object in JSON")
	}
	module := "srp6a"
	if encoded, ok := members["module"]; ok && json.Unmarshal(encoded, &module) != nil {
		return namedVariant{}, errors.New("module must be a text")
	}
	delete(members, "module")
	options, err := json.Marshal(members)
	if err != nil {
		return namedVariant{}, err
	}
	switch module {
	case "rfc5054":
		var p caddymodule.RFC5054
		if err := json.Unmarshal(options, &p); err != nil {
			return namedVariant{}, err
		}
		return variantOf(json.RawMessage(fmt.Sprintf("%q", cmp.Or(p.Name, srp.DefaultProfile))))
	case "srp6a":
		var p caddymodule.SRP6a
		if err := json.Unmarshal(options, &p); err != nil {
			return namedVariant{}, err
		}
		name := cmp.Or(p.Name, "srp6a")
		made, err := srp.New(name, p.Variant)
		if err != nil {
			return namedVariant{}, err
		}
		return namedVariant{name, made.Variant()}, nil
	}
	return namedVariant{}, errors.New("only the modules rfc5054 and srp6a can be compared")
}

func newCompareCommand() *cobra.Command {
	var o profileOptions
	var values bool
	c := &cobra.Command{
		Use: "check CAPTURE", Short: "Compares a recorded exchange with a configured profile",
		Long: `Computes a recorded exchange with the profile of --profile or --config, value by value,
and says which recorded values are the same, and at which phone and profile part.

` + captureFiles + `
With --values, it prints what the profile gives for each value, also the secret ones.

The exit status is 0 if all recorded values are those of a profile, 1 if they are not,
and 2 if the capture or the profile cannot be read.`,
		RunE: func(c *cobra.Command, args []string) error {
			profiles, err := o.read()
			if err != nil {
				return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: err}
			}
			captures, err := readCaptures(args)
			if err != nil {
				return err
			}
			same := false
			for _, p := range profiles {
				fits, err := compareWith(c.OutOrStdout(), p, captures[0], values)
				if err != nil {
					return err
				}
				same = same || fits
			}
			if !same {
				return &caddymodule.Failure{Code: caddymodule.ExitFinding, Err: caddymodule.ErrPrinted}
			}
			return nil
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&values, "values", false, "print the values that the profile gives, also the secret ones")
	return caddymodule.WithExitCodes(c, 1, 1)
}

// compareWith prints the comparison with a profile, and reports whether all recorded values are
// its.
func compareWith(out io.Writer, p namedVariant, capture solve.Capture, values bool) (bool, error) {
	var text bytes.Buffer
	fmt.Fprintf(&text, "profile %s\n", p.name)
	list, err := solve.Compare(capture, p.Variant)
	if err != nil {
		fmt.Fprintf(&text, "differs: %v\n", err)
		_, err = out.Write(text.Bytes())
		return false, err
	}
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	parted := ""
	for _, x := range list {
		outcome := "not recorded"
		switch {
		case x.Equal:
			outcome = "the same"
		case x.Recorded:
			outcome = "differs"
			parted = cmp.Or(parted, x.Name)
		}
		value := ""
		if values {
			value = strings.ToUpper(hex.EncodeToString(x.Value))
		}
		row(w, "  "+x.Name, outcome, value)
	}
	if err := w.Flush(); err != nil {
		return false, err
	}
	if parted != "" {
		fmt.Fprintf(&text, "Phone and profile part at %s.\n", parted)
	} else {
		fmt.Fprintln(&text, "All recorded values are those of the profile.")
	}
	_, err = out.Write(text.Bytes())
	return parted == "", err
}
