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
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/solve"
)

const (
	callTimeout = 60 * time.Second
	maxPushes   = 1 << 20 // maximum size, in bytes, of the list of push notifications
	// notificationID stands for the ID that a real phone gets from its push service.
	notificationID = "sandbox phone"
)

func newPhoneCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "phone <command>",
		Short: "Acts as a phone and shows each call of the gateway",
		Long: `Acts as a phone and shows each call of the gateway. The device is simulated. Its
algorithm is that of the sandbox; no real authentication server understands it.

With --json, a command prints one JSON object with all values in full, also the
passwords. docs/sandbox.md describes its members.

The exit status is 0 after a success, 1 if the gateway or the authentication server
refused, 2 for wrong flags and missing files, and 3 if there was no answer or one that
could not be verified.`,
	}
	c.AddCommand(
		newActivateCommand(),
		newAnswerCommand(sandbox.KindSignature, "sign", `Retrieves the transaction that waits for the phone, shows it and signs it. Run
'sandbox request-signature' in another terminal first.`),
		newAnswerCommand(sandbox.KindLogin, "login", `Retrieves the login that waits for the phone, shows it and approves it. Run
'sandbox request-login' in another terminal first.`),
		newCancelCommand(),
		newAuthenticateCommand(),
	)
	return c
}

// phoneOptions are the flags of every command of the phone.
type phoneOptions struct {
	connectionOptions
	key    string
	device string
	v1     bool
	json   bool
}

func (o *phoneOptions) flags(c *cobra.Command) {
	o.connectionOptions.flags(c)
	f := c.Flags()
	f.StringVar(&o.key, "front-end-key", frontEndKey, "front-end API key")
	f.StringVar(&o.device, "device", "", "file with the keys of the phone (default phone.json in --dir)")
	f.BoolVar(&o.v1, "v1", false, "use the deprecated services of version 1")
	f.BoolVar(&o.json, "json", false, "print everything that is sent and received in JSON, also the secrets")
}

func (o *phoneOptions) deviceFile() string { return cmp.Or(o.device, deviceFile(o.dir)) }

// phone returns a phone whose calls t shows.
func (o *phoneOptions) phone(t *trace) (*sandbox.Phone, error) {
	client, err := o.client(callTimeout)
	if err != nil {
		return nil, err
	}
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

// activatedPhone returns a phone and the authenticator from its file.
func (o *phoneOptions) activatedPhone(t *trace) (*sandbox.Phone, *sandbox.Authenticator, error) {
	a, err := readDevice(o.deviceFile())
	if err != nil {
		return nil, nil, err
	}
	phone, err := o.phone(t)
	if err != nil {
		return nil, nil, err
	}
	t.acts(a, o.deviceFile())
	return phone, a, nil
}

// activateOptions are the flags of `caddy dsapp phone activate`.
type activateOptions struct {
	phoneOptions
	backEndKey string
	identifier string
	password   string
	image      string
	standard   bool
	bind       bool
	capture    string
}

func newActivateCommand() *cobra.Command {
	var o activateOptions
	c := &cobra.Command{
		Use:   "activate",
		Short: "Activates a simulated phone",
		Long: `Activates a simulated phone: runs the exchange that proves the activation
password, decrypts the activation message, adds the device, completes the
activation and sends the push notification ID of the phone. The keys of the phone
are stored in a file for the other commands.

Name the registration by its identifier and password or by the content of the
activation image. If you name none, the command first acts as the bank's site and
registers the sandbox's user. With --activation-password alone, it then uses that
password instead of the right one, so that you can see the gateway refuse it.

With --standard, the licence is a standard licence, which supports one-time
passwords only.

With --capture, the phone writes the exchange with all its secret values to a new file
that only you can read: an example for 'dsapp profile solve'.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.present(c, func(t *trace) error { return o.run(c.Context(), t) })
		},
	}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&o.backEndKey, "back-end-key", backEndKey, "back-end API key, to register the user")
	f.StringVar(&o.identifier, "registration-identifier", "", "identifier of the registration")
	f.StringVar(&o.password, "activation-password", "", "activation password")
	f.StringVar(&o.image, "image", "", "hexadecimal content of the activation image")
	f.StringVar(&o.capture, "capture", "", "new file for the recorded exchange")
	f.BoolVar(&o.standard, "standard", false, "activate a standard licence")
	f.BoolVar(&o.bind, "bind", false, "confirm the activation of a standard licence with a derivation code instead of a one-time password")
	c.MarkFlagsMutuallyExclusive("image", "registration-identifier")
	c.MarkFlagsMutuallyExclusive("image", "activation-password")
	c.MarkFlagsMutuallyExclusive("standard", "v1")
	return withExitCodes(c)
}

// run registers the user if necessary, activates the phone and prints the result.
func (o *activateOptions) run(ctx context.Context, t *trace) error {
	out := t.out
	if o.identifier != "" && o.password == "" {
		return misused("--registration-identifier needs --activation-password")
	}
	if o.bind && !o.standard {
		return misused("--bind needs --standard")
	}
	phone, err := o.phone(t)
	if err != nil {
		return err
	}
	defer phone.Client.CloseIdleConnections()
	var captureErr error
	if o.capture != "" {
		phone.Capture = func(c solve.Capture) { captureErr = solve.WriteFile(o.capture, c) }
	}

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
		fmt.Fprintf(out, "The steps below hide the passwords. The bank's site shows its user the identifier %s and the activation password %s.\n",
			r.identifier, registered.ActivationPassword)
	}
	fmt.Fprintf(out, "The phone activates %s with the %s activation password.\n\n", r.identifier, source)
	activated, err := o.activate(ctx, phone, r)
	if err != nil {
		return err
	}
	if captureErr != nil {
		captureErr = fmt.Errorf("--capture: %w", captureErr)
	}
	a := activated.Authenticator
	a.UserID, a.Domain = cmp.Or(a.UserID, r.userID), cmp.Or(a.Domain, r.domain) // The answers of version 1 do not contain them.
	if err := writePrivate(o.deviceFile(), a); err != nil {
		return fmt.Errorf("storing the keys of the phone: %w", err)
	}
	t.acts(a, o.deviceFile())
	if !o.standard {
		fmt.Fprint(out, "The phone sends its push notification ID.\n\n")
		if err := phone.UpdateNotificationID(ctx, a, notificationID); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "Activated: %s\nThe phone keeps its keys in %s.\n", activated.InstanceSerial, o.deviceFile())
	return captureErr
}

func (o *activateOptions) activate(ctx context.Context, phone *sandbox.Phone, r registration) (sandbox.Activation, error) {
	if o.standard {
		return phone.ActivateStandard(ctx, r.identifier, r.password, o.bind)
	}
	return phone.Activate(ctx, r.identifier, r.password)
}

// registration is the content of an activation image without the gateway ID.
type registration struct {
	identifier, password string
	userID, domain       string
}

// readImage reads the content of an activation image:
// 01;01;user;domain;identifier;password;gateway.
func readImage(digits string) (registration, error) {
	content, err := hex.DecodeString(digits)
	if err != nil {
		return registration{}, misused("--image is not an even number of hexadecimal digits")
	}
	fields := strings.Split(string(content), ";")
	if len(fields) != 7 || fields[0] != "01" || fields[1] != "01" || fields[4] == "" || fields[5] == "" {
		return registration{}, misused("--image is not the content of an activation image of version 01")
	}
	return registration{userID: fields[2], domain: fields[3], identifier: fields[4], password: fields[5]}, nil
}

// requestOptions are the flags of the commands that answer a pending request.
type requestOptions struct {
	phoneOptions
	requestKey string
	scan       bool
	prepare    bool
}

func (o *requestOptions) flags(c *cobra.Command) {
	o.phoneOptions.flags(c)
	o.serverFlag(c)
	f := c.Flags()
	f.StringVar(&o.requestKey, "key", "", "key of the request (default the key in the last push notification)")
	f.BoolVar(&o.scan, "scan", false, "--key was scanned from an image")
	prepareFlag(c, &o.prepare)
}

// prepareFlag adds the flag of commands whose last call another client can send.
func prepareFlag(c *cobra.Command, to *bool) {
	c.Flags().BoolVar(to, "prepare", false, "do not send the last call, but print it as the member next; needs --json")
}

func newAnswerCommand(kind sandbox.Kind, use, long string) *cobra.Command {
	var o requestOptions
	c := &cobra.Command{
		Use:   use,
		Short: fmt.Sprintf("Approves the %s that waits for the phone", kind),
		Long:  long,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.answer(c, kind, func(t *trace, phone *sandbox.Phone, a *sandbox.Authenticator, pending sandbox.RetrievedRequest) error {
				done, err := phone.Complete(c.Context(), kind, a, pending)
				if err != nil {
					return err
				}
				fmt.Fprintf(t.out, "Approved%s.\n", describeApproval(done))
				return nil
			})
		},
	}
	o.flags(c)
	return withExitCodes(c)
}

func newCancelCommand() *cobra.Command {
	var o requestOptions
	var kind string
	var plain bool
	c := &cobra.Command{
		Use:   "cancel",
		Short: "Rejects the transaction or the login that waits for the phone",
		Long: `Retrieves the transaction or the login that waits for the phone, shows it and
rejects it. The phone sends the key of the request in an encrypted message; with
--plain, it sends the key in clear.`,
		RunE: func(c *cobra.Command, _ []string) error {
			kind := sandbox.Kind(kind)
			if kind != sandbox.KindSignature && kind != sandbox.KindLogin {
				return misused("--kind is neither %s nor %s", sandbox.KindSignature, sandbox.KindLogin)
			}
			return o.answer(c, kind, func(t *trace, phone *sandbox.Phone, a *sandbox.Authenticator, pending sandbox.RetrievedRequest) error {
				if err := phone.Cancel(c.Context(), kind, a, pending.Request.Key, !plain); err != nil {
					return err
				}
				fmt.Fprintln(t.out, "Rejected.")
				return nil
			})
		},
	}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&kind, "kind", string(sandbox.KindSignature), "kind of the request to reject: signature or login")
	f.BoolVar(&plain, "plain", false, "send the key in clear")
	return withExitCodes(c)
}

// answer retrieves a pending request, shows it and passes it to finish.
func (o *requestOptions) answer(
	c *cobra.Command, kind sandbox.Kind, finish func(*trace, *sandbox.Phone, *sandbox.Authenticator, sandbox.RetrievedRequest) error,
) error {
	return o.present(c, func(t *trace) error {
		switch {
		case o.scan && o.requestKey == "":
			return misused("--scan needs --key")
		case o.v1 && (o.scan || kind != sandbox.KindLogin):
			return misused("version 1 has services for push logins only")
		case o.prepare && !o.json:
			return errPrepare
		}
		phone, a, err := o.activatedPhone(t)
		if err != nil {
			return err
		}
		defer phone.Client.CloseIdleConnections()
		phone.Scan = o.scan

		key := o.requestKey
		if key == "" {
			push, err := o.lastPush(c.Context(), phone.Client, kind, a.SerialNumber)
			if err != nil {
				return err
			}
			key = push.Key
			fmt.Fprintf(t.out, "The phone %s shows the push notification: %s\n\n", a.SerialNumber, push.Message)
		}
		pending, err := phone.Retrieve(c.Context(), kind, a, key)
		if err != nil {
			return err
		}
		t.Request = &pending.Request
		fmt.Fprintf(t.out, "The phone shows its user, %s in %s:\n\n", pending.Request.UserID, pending.Request.Domain)
		showRequest(t.out, pending.Request.Title, pending.Request.Fields)
		phone.Hold = o.prepare
		return t.held(finish(t, phone, a, pending))
	})
}

var errPrepare = misused("--prepare needs --json")

// lastPush returns the last push notification of a kind that the simulated authentication
// server sent to a device.
func (o *requestOptions) lastPush(ctx context.Context, client *http.Client, kind sandbox.Kind, serialNumber string) (sandbox.Push, error) {
	address, err := url.Parse(o.server)
	if err != nil {
		return sandbox.Push{}, misused("--server: %w", err)
	}
	address = address.JoinPath(pushesPath)
	address.RawQuery = url.Values{"serialNumber": {serialNumber}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return sandbox.Push{}, misused("--server: %w", err)
	}
	response, err := client.Do(r)
	if err != nil {
		return sandbox.Push{}, fmt.Errorf("reading push notifications from the simulated authentication server: %w; "+
			"name its URL, which the sandbox prints, with --server, or the sandbox's --ready-file, or the key of the request with --key", err)
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
	return sandbox.Push{}, fmt.Errorf("the phone %s got no push notification of a %s: request one with `dsapp sandbox request-%[2]s`", serialNumber, kind)
}

func newAuthenticateCommand() *cobra.Command {
	var o phoneOptions
	var prepare bool
	c := &cobra.Command{
		Use:   "authenticate",
		Short: "Logs the user in with a one-time password",
		Long:  `Logs the user of the phone in with the next one-time password.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if prepare && !o.json {
				return errPrepare
			}
			return o.present(c, func(t *trace) error { return o.authenticate(c.Context(), t, prepare) })
		},
	}
	o.flags(c)
	prepareFlag(c, &prepare)
	return withExitCodes(c)
}

func (o *phoneOptions) authenticate(ctx context.Context, t *trace, prepare bool) error {
	phone, a, err := o.activatedPhone(t)
	if err != nil {
		return err
	}
	defer phone.Client.CloseIdleConnections()
	phone.Hold = prepare
	done, err := phone.Authenticate(ctx, a)
	err = t.held(err)
	// The one-time password is used up, whatever the result.
	if err := errors.Join(withHint(err, "STAT_LOCAL_PASSWORD_MISMATCH"), writePrivate(o.deviceFile(), a)); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "Logged in%s.\n", describeApproval(done))
	return nil
}

// describeApproval returns the user and the device of an approval as the end of a sentence, or
// the empty string if both are unknown.
func describeApproval(a sandbox.AuthenticatedUser) string {
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

// showRequest prints the title and the fields that the user is asked to approve.
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
