package sandboxcmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

const callTimeout = 60 * time.Second

// phoneOptions of `caddy dsapp phone activate`.
type phoneOptions struct {
	gateway    string
	authority  string
	key        string
	backEndKey string
	identifier string
	password   string
	image      string
	v1         bool
}

func newPhoneCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "phone <command>",
		Short: "Plays a phone against a gateway and shows each step",
		Long: `Plays a phone against a gateway and shows each step. The device is simulated: its
algorithm is the sandbox's own, no real authentication server understands it.`,
	}
	c.AddCommand(newActivateCommand())
	return c
}

func newActivateCommand() *cobra.Command {
	var o phoneOptions
	c := &cobra.Command{
		Use:   "activate",
		Short: "Activates a simulated phone",
		Long: `Activates a simulated phone: runs the exchange that proves knowledge of the
activation password, decrypts the activation message, adds the device and
completes the activation.

The registration is given by its identifier and password or by the content of
the activation image. Without one, the command first plays the bank's site and
registers the sandbox's user; an activation password that is given nevertheless
is used in place of the registration's, to see it refused.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.activate(c.Context(), c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&o.gateway, "gateway", defaultGatewayURL, "URL of the gateway")
	f.StringVar(&o.authority, "ca", authorityFile(defaultDir()), "PEM file of the CA that the gateway's certificate is from")
	f.StringVar(&o.key, "key", frontEndKey, "front-end key")
	f.StringVar(&o.backEndKey, "back-end-key", backEndKey, "back-end key, to register the user")
	f.StringVar(&o.identifier, "registration-identifier", "", "identifier of the registration")
	f.StringVar(&o.password, "activation-password", "", "activation password")
	f.StringVar(&o.image, "image", "", "hexadecimal content of the activation image")
	f.BoolVar(&o.v1, "v1", false, "use the deprecated services below /rest/activation")
	c.MarkFlagsMutuallyExclusive("image", "registration-identifier")
	c.MarkFlagsMutuallyExclusive("image", "activation-password")
	return c
}

// activate runs the activation and tells about it.
func (o *phoneOptions) activate(ctx context.Context, out io.Writer) error {
	if o.identifier != "" && o.password == "" {
		return errors.New("--registration-identifier needs --activation-password")
	}
	client, err := o.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	t := &trace{out: out}
	phone := &sandbox.Phone{
		BaseURL:     o.gateway,
		APIKey:      o.key,
		Client:      client,
		Description: "sandbox phone",
		Trace:       t.step,
	}
	if o.v1 {
		phone.Version = 1
	}

	identifier, password, source := o.identifier, o.password, "given"
	switch {
	case o.image != "":
		source = "image's"
		if identifier, password, err = readImage(o.image); err != nil {
			return err
		}
	case identifier == "":
		fmt.Fprintf(out, "No registration is given: the bank's site registers %s in %s.\n\n", userID, domain)
		registered, err := phone.RegisterUser(ctx, o.backEndKey, sandbox.UserRegistration{
			UserID: userID, Domain: domain, StaticPassword: staticPassword,
		})
		if err != nil {
			return err
		}
		identifier = registered.RegistrationIdentifier
		if password == "" {
			password, source = registered.ActivationPassword, "site's"
		}
		fmt.Fprintf(out, "The steps show no password, but the site shows its user the identifier %s and the activation password %s.\n",
			identifier, registered.ActivationPassword)
	}
	fmt.Fprintf(out, "The phone activates %s with the %s activation password.\n\n", identifier, source)
	activated, err := phone.Activate(ctx, identifier, password)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Activated: %s\n", activated.InstanceSerial)
	return nil
}

// client trusts the CA of --ca and nothing else.
func (o *phoneOptions) client() (*http.Client, error) {
	pem, err := os.ReadFile(o.authority)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist: start the sandbox, or name the CA of the gateway with --ca", o.authority)
	}
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", o.authority)
	}
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
		},
		Timeout: callTimeout,
	}, nil
}

// readImage takes identifier and password from the content of an activation
// image: 01;01;user;domain;identifier;password;gateway.
func readImage(digits string) (identifier, password string, err error) {
	content, err := hex.DecodeString(digits)
	if err != nil {
		return "", "", errors.New("--image is not an even number of hexadecimal digits")
	}
	fields := strings.Split(string(content), ";")
	if len(fields) != 7 || fields[0] != "01" || fields[1] != "01" || fields[4] == "" || fields[5] == "" {
		return "", "", errors.New("--image is not the content of an activation image of version 01")
	}
	return fields[4], fields[5], nil
}

// trace prints the steps of a phone.
type trace struct {
	out   io.Writer
	count int
}

func (t *trace) step(s sandbox.Step) {
	t.count++
	fmt.Fprintf(t.out, "%d. %s\n", t.count, s.Call)
	t.members("sent", s.Sent)
	if s.HTTPStatus == 0 {
		t.line("received", "no answer")
	} else {
		t.line("received", fmt.Sprintf("HTTP status %d", s.HTTPStatus))
	}
	t.members("", s.Received)
	for _, what := range s.Verified {
		t.line("verified", what)
	}
	fmt.Fprintln(t.out)
}

func (t *trace) members(label string, members []sandbox.Member) {
	width := 0
	for _, m := range members {
		width = max(width, len(m.Name))
	}
	for _, m := range members {
		t.line(label, fmt.Sprintf("%-*s  %s", width, m.Name, m.Value))
		label = ""
	}
}

func (t *trace) line(label, text string) {
	fmt.Fprintf(t.out, "   %-9s %s\n", label, text)
}
