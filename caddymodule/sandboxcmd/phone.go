package sandboxcmd

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

const (
	callTimeout = 60 * time.Second
	maxPushes   = 1 << 20 // bytes of the answer
	// notificationID is what a real phone has from its push service.
	notificationID = "sandbox phone"
)

func newPhoneCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "phone <command>",
		Short: "Plays a phone against a gateway and shows each step",
		Long: `Plays a phone against a gateway and shows each step. The device is simulated: its
algorithm is the sandbox's own, no real authentication server understands it.`,
	}
	c.AddCommand(
		newActivateCommand(),
		newAnswerCommand(sandbox.KindSignature, "sign", `Fetches the transaction that waits for the phone, shows it and signs it. The
commands 'sandbox request-signature' and 'phone sign' belong together.`),
		newAnswerCommand(sandbox.KindLogin, "login", `Fetches the login that waits for the phone, shows it and approves it. The
commands 'sandbox request-login' and 'phone login' belong together.`),
		newCancelCommand(),
		newAuthenticateCommand(),
	)
	return c
}

// phoneOptions are those of every command of the phone.
type phoneOptions struct {
	place
	key    string
	device string
	v1     bool
}

func (o *phoneOptions) flags(c *cobra.Command) {
	o.place.flags(c)
	f := c.Flags()
	f.StringVar(&o.key, "front-end-key", frontEndKey, "front-end key")
	f.StringVar(&o.device, "device", "", "file in which the phone keeps its keys (default phone.json in --dir)")
	f.BoolVar(&o.v1, "v1", false, "use the deprecated services of version 1")
}

func (o *phoneOptions) deviceFile() string { return cmp.Or(o.device, deviceFile(o.dir)) }

// phone gives a phone that tells its steps.
func (o *phoneOptions) phone(out io.Writer) (*sandbox.Phone, error) {
	client, err := o.client(callTimeout)
	if err != nil {
		return nil, err
	}
	t := &trace{out: out}
	p := &sandbox.Phone{
		BaseURL:     o.gateway,
		APIKey:      o.key,
		Client:      client,
		Description: "sandbox phone",
		Trace:       t.step,
	}
	if o.v1 {
		p.Version = 1
	}
	return p, nil
}

// activated gives an activated phone with its keys.
func (o *phoneOptions) activated(out io.Writer) (*sandbox.Phone, *sandbox.Authenticator, error) {
	a, err := readDevice(o.deviceFile())
	if err != nil {
		return nil, nil, err
	}
	phone, err := o.phone(out)
	if err != nil {
		return nil, nil, err
	}
	return phone, a, nil
}

// activateOptions of `caddy dsapp phone activate`.
type activateOptions struct {
	phoneOptions
	backEndKey string
	identifier string
	password   string
	image      string
	standard   bool
	bind       bool
}

func newActivateCommand() *cobra.Command {
	var o activateOptions
	c := &cobra.Command{
		Use:   "activate",
		Short: "Activates a simulated phone",
		Long: `Activates a simulated phone: runs the exchange that proves knowledge of the
activation password, decrypts the activation message, adds the device, completes
the activation and tells the ID under which the phone gets push notifications.
The keys of the phone are kept in a file for the other commands.

The registration is given by its identifier and password or by the content of
the activation image. Without one, the command first plays the bank's site and
registers the sandbox's user; an activation password that is given nevertheless
is used in place of the registration's, to see it refused.

With --standard the licence is a standard one, which can make one-time passwords
and nothing else.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.run(c.Context(), c.OutOrStdout())
		},
	}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&o.backEndKey, "back-end-key", backEndKey, "back-end key, to register the user")
	f.StringVar(&o.identifier, "registration-identifier", "", "identifier of the registration")
	f.StringVar(&o.password, "activation-password", "", "activation password")
	f.StringVar(&o.image, "image", "", "hexadecimal content of the activation image")
	f.BoolVar(&o.standard, "standard", false, "activate a standard licence")
	f.BoolVar(&o.bind, "bind", false, "confirm the activation of a standard licence with a derivation code in place of a one-time password")
	c.MarkFlagsMutuallyExclusive("image", "registration-identifier")
	c.MarkFlagsMutuallyExclusive("image", "activation-password")
	c.MarkFlagsMutuallyExclusive("standard", "v1")
	return c
}

// run runs the activation and tells about it.
func (o *activateOptions) run(ctx context.Context, out io.Writer) error {
	if o.identifier != "" && o.password == "" {
		return errors.New("--registration-identifier needs --activation-password")
	}
	if o.bind && !o.standard {
		return errors.New("--bind needs --standard")
	}
	phone, err := o.phone(out)
	if err != nil {
		return err
	}
	defer phone.Client.CloseIdleConnections()

	r := registration{identifier: o.identifier, password: o.password, userID: userID, domain: domain}
	source := "given"
	switch {
	case o.image != "":
		source = "image's"
		if r, err = readImage(o.image); err != nil {
			return err
		}
	case o.identifier == "":
		fmt.Fprintf(out, "No registration is given: the bank's site registers %s in %s.\n\n", userID, domain)
		u := sandbox.UserRegistration{UserID: userID, Domain: domain, StaticPassword: staticPassword}
		if o.standard {
			u.LicenseType = "standard"
		}
		registered, err := phone.RegisterUser(ctx, o.backEndKey, u)
		if err != nil {
			return err
		}
		r.identifier = registered.RegistrationIdentifier
		if r.password == "" {
			r.password, source = registered.ActivationPassword, "site's"
		}
		fmt.Fprintf(out, "The steps show no password, but the site shows its user the identifier %s and the activation password %s.\n",
			r.identifier, registered.ActivationPassword)
	}
	fmt.Fprintf(out, "The phone activates %s with the %s activation password.\n\n", r.identifier, source)
	activated, err := o.activate(ctx, phone, r)
	if err != nil {
		return err
	}
	a := activated.Authenticator
	a.UserID, a.Domain = cmp.Or(a.UserID, r.userID), cmp.Or(a.Domain, r.domain) // version 1 does not tell
	if err := writeDevice(o.deviceFile(), a); err != nil {
		return fmt.Errorf("keeping the keys of the phone: %w", err)
	}
	if !o.standard {
		fmt.Fprint(out, "The phone tells the ID under which it gets push notifications.\n\n")
		if err := phone.UpdateNotificationID(ctx, a, notificationID); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "Activated: %s\nThe phone keeps its keys in %s.\n", activated.InstanceSerial, o.deviceFile())
	return nil
}

func (o *activateOptions) activate(ctx context.Context, phone *sandbox.Phone, r registration) (sandbox.Activation, error) {
	if o.standard {
		return phone.ActivateStandard(ctx, r.identifier, r.password, o.bind)
	}
	return phone.Activate(ctx, r.identifier, r.password)
}

// A registration is what a user brings to a phone.
type registration struct {
	identifier, password string
	userID, domain       string
}

// readImage reads the content of an activation image:
// 01;01;user;domain;identifier;password;gateway.
func readImage(digits string) (registration, error) {
	content, err := hex.DecodeString(digits)
	if err != nil {
		return registration{}, errors.New("--image is not an even number of hexadecimal digits")
	}
	fields := strings.Split(string(content), ";")
	if len(fields) != 7 || fields[0] != "01" || fields[1] != "01" || fields[4] == "" || fields[5] == "" {
		return registration{}, errors.New("--image is not the content of an activation image of version 01")
	}
	return registration{userID: fields[2], domain: fields[3], identifier: fields[4], password: fields[5]}, nil
}

// requestOptions of the commands that answer a pending request.
type requestOptions struct {
	phoneOptions
	requestKey string
	scan       bool
}

func (o *requestOptions) flags(c *cobra.Command) {
	o.phoneOptions.flags(c)
	o.serverFlag(c)
	f := c.Flags()
	f.StringVar(&o.requestKey, "key", "", "key of the request (default that of the last push notification)")
	f.BoolVar(&o.scan, "scan", false, "the phone scanned the --key from an image")
}

func newAnswerCommand(kind sandbox.Kind, use, long string) *cobra.Command {
	var o requestOptions
	c := &cobra.Command{
		Use:   use,
		Short: fmt.Sprintf("Approves the %s that waits for the phone", kind),
		Long:  long,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			return o.answer(c.Context(), out, kind, func(phone *sandbox.Phone, a *sandbox.Authenticator, pending sandbox.RetrievedRequest) error {
				done, err := phone.Complete(c.Context(), kind, a, pending)
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "Approved%s.\n", describe(done))
				return nil
			})
		},
	}
	o.flags(c)
	return c
}

func newCancelCommand() *cobra.Command {
	var o requestOptions
	var kind string
	var plain bool
	c := &cobra.Command{
		Use:   "cancel",
		Short: "Rejects the transaction or the login that waits for the phone",
		Long: `Fetches the transaction or the login that waits for the phone, shows it and
rejects it. The phone names the request to the authentication server by its key
in an encrypted message; with --plain by the key itself.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			kind := sandbox.Kind(kind)
			if kind != sandbox.KindSignature && kind != sandbox.KindLogin {
				return fmt.Errorf("--kind is neither %s nor %s", sandbox.KindSignature, sandbox.KindLogin)
			}
			out := c.OutOrStdout()
			return o.answer(c.Context(), out, kind, func(phone *sandbox.Phone, a *sandbox.Authenticator, pending sandbox.RetrievedRequest) error {
				if err := phone.Cancel(c.Context(), kind, a, pending.Request.Key, !plain); err != nil {
					return err
				}
				fmt.Fprintln(out, "Rejected.")
				return nil
			})
		},
	}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&kind, "kind", string(sandbox.KindSignature), "what to reject: signature or login")
	f.BoolVar(&plain, "plain", false, "send the key as it is, not encrypted")
	return c
}

// answer fetches a pending request, shows it and lets end end it.
func (o *requestOptions) answer(
	ctx context.Context, out io.Writer, kind sandbox.Kind, end func(*sandbox.Phone, *sandbox.Authenticator, sandbox.RetrievedRequest) error,
) error {
	switch {
	case o.scan && o.requestKey == "":
		return errors.New("--scan needs --key")
	case o.v1 && (o.scan || kind != sandbox.KindLogin):
		return errors.New("version 1 knows nothing but logins by push")
	}
	phone, a, err := o.activated(out)
	if err != nil {
		return err
	}
	defer phone.Client.CloseIdleConnections()
	phone.Scan = o.scan

	key := o.requestKey
	if key == "" {
		push, err := o.lastPush(ctx, phone.Client, kind, a.SerialNumber)
		if err != nil {
			return err
		}
		key = push.Key
		fmt.Fprintf(out, "The phone %s shows the push notification: %s\n\n", a.SerialNumber, push.Message)
	}
	pending, err := phone.Retrieve(ctx, kind, a, key)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The phone shows its user, %s in %s:\n\n", pending.Request.UserID, pending.Request.Domain)
	showRequest(out, pending.Request.Title, pending.Request.Fields)
	return end(phone, a, pending)
}

// lastPush asks the simulated authentication server for the last push notification
// of a kind that it sent to the device.
func (o *requestOptions) lastPush(ctx context.Context, client *http.Client, kind sandbox.Kind, serialNumber string) (sandbox.Push, error) {
	address, err := url.Parse(o.server)
	if err != nil {
		return sandbox.Push{}, fmt.Errorf("--server: %w", err)
	}
	address = address.JoinPath(pushesPath)
	address.RawQuery = url.Values{"serialNumber": {serialNumber}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return sandbox.Push{}, fmt.Errorf("--server: %w", err)
	}
	response, err := client.Do(r)
	if err != nil {
		return sandbox.Push{}, fmt.Errorf("reading push notifications: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return sandbox.Push{}, fmt.Errorf("reading push notifications: HTTP status %d", response.StatusCode)
	}
	var pushes []sandbox.Push
	if err := json.NewDecoder(io.LimitReader(response.Body, maxPushes)).Decode(&pushes); err != nil {
		return sandbox.Push{}, fmt.Errorf("reading push notifications: %w", err)
	}
	for _, push := range slices.Backward(pushes) {
		if push.Kind == kind {
			return push, nil
		}
	}
	return sandbox.Push{}, fmt.Errorf("the phone %s got no push notification of a %s: ask for one with `dsapp sandbox request-%[2]s`", serialNumber, kind)
}

func newAuthenticateCommand() *cobra.Command {
	var o phoneOptions
	c := &cobra.Command{
		Use:   "authenticate",
		Short: "Logs the user in with a one-time password",
		Long:  `Logs the user of the phone in with the next one-time password.`,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.authenticate(c.Context(), c.OutOrStdout())
		},
	}
	o.flags(c)
	return c
}

func (o *phoneOptions) authenticate(ctx context.Context, out io.Writer) error {
	phone, a, err := o.activated(out)
	if err != nil {
		return err
	}
	defer phone.Client.CloseIdleConnections()
	done, err := phone.Authenticate(ctx, a)
	// The one-time password counts as used, whatever came of it.
	if err := errors.Join(hint(err, "STAT_LOCAL_PASSWORD_MISMATCH"), writeDevice(o.deviceFile(), a)); err != nil {
		return err
	}
	fmt.Fprintf(out, "Logged in%s.\n", describe(done))
	return nil
}

// describe tells for whom and by what an approval counts, empty if nothing is known.
func describe(a sandbox.AuthenticatedUser) string {
	if a == (sandbox.AuthenticatedUser{}) {
		return ""
	}
	text := " for " + a.UserID
	if a.Domain != "" {
		text += " in " + a.Domain
	}
	if a.SerialNumber != "" {
		text += " by " + a.SerialNumber
	}
	return text
}

// showRequest prints what the user is asked to approve.
func showRequest(out io.Writer, title string, fields []sandbox.RequestField) {
	fmt.Fprintf(out, "   %s\n", title)
	width := 0
	for _, f := range fields {
		width = max(width, len(f.Key))
	}
	for _, f := range fields {
		fmt.Fprintf(out, "   %-*s  %s\n", width, f.Key, f.Value)
	}
	fmt.Fprintln(out)
}
