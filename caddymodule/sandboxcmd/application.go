package sandboxcmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

// applicationOptions are the flags of the commands that act as the bank's application server.
type applicationOptions struct {
	connectionOptions
	userID       string
	domain       string
	serialNumber string
	title        string
	fields       []string
	scan         bool
}

func newRequestCommand(kind sandbox.Kind) *cobra.Command {
	var o applicationOptions
	scanned := "the one of --serial-number, or the one that was activated last"
	if kind == sandbox.KindLogin {
		scanned = "the one that was activated last"
	}
	c := &cobra.Command{
		Use:   "request-" + string(kind),
		Short: fmt.Sprintf("Requests a %s as the bank's application server does, and waits for the phone", kind),
		Long: fmt.Sprintf(`Acts as the bank's application server: requests a %s from the simulated
authentication server and waits until the user has answered on the phone, for at
most a minute. The exit status is 0 if the user approved, 1 if the request was
refused, rejected or not answered in time, 2 for wrong flags, and 3 if there was no
answer. A phone of the user
must have been activated since the simulated authentication server was started.

The phone gets the key of the request in a push notification. With --scan, it scans
the key from an image that the bank's site shows. A request to scan is for one
device: %s.`, kind, scanned),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.readAddresses(c.Flags().Changed); err != nil {
				return err
			}
			return o.request(c.Context(), c.OutOrStdout(), kind)
		},
	}
	o.flags(c)
	o.serverFlag(c)
	f := c.Flags()
	f.StringVar(&o.userID, "user", userID, "user who has to approve")
	f.StringVar(&o.domain, "domain", domain, "domain of the user")
	f.BoolVar(&o.scan, "scan", false, "show an image with the key instead of sending a push notification")
	f.StringVar(&o.serialNumber, "serial-number", "", "device that has to approve (default all devices of the user)")
	title := "Log in to the bank"
	if kind == sandbox.KindLogin {
		// The SOAP command that prepares a login has no serial number.
		c.MarkFlagsMutuallyExclusive("scan", "serial-number")
	} else {
		title = "Transfer"
		f.StringArrayVar(&o.fields, "field", []string{"Amount=250.00 EUR", "To=Bob"}, "field of the transaction, as name=value; can be repeated")
	}
	f.StringVar(&o.title, "title", title, "title that the phone shows")
	return withExitCodes(c)
}

// request requests a login or signature and prints the result.
func (o *applicationOptions) request(ctx context.Context, out io.Writer, kind sandbox.Kind) error {
	fields, err := parseFields(o.fields)
	if err != nil {
		return err
	}
	client, err := o.client(0)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	application := &sandbox.ApplicationServer{URL: o.server, Client: client}
	login := sandbox.LoginRequest{UserID: o.userID, Domain: o.domain, SerialNumber: o.serialNumber, Message: o.title}
	signature := sandbox.SignatureRequest{
		UserID: o.userID, Domain: o.domain, SerialNumber: o.serialNumber, Title: o.title, Fields: fields,
	}

	fmt.Fprintf(out, "The application server asks %s in %s for a %s:\n\n", o.userID, o.domain, kind)
	showRequest(out, o.title, fields)
	flags := o.phoneFlags()
	if o.scan {
		var key string
		if kind == sandbox.KindLogin {
			key, err = application.PrepareLogin(ctx, login)
		} else {
			key, err = application.PrepareSignature(ctx, signature)
		}
		if err != nil {
			return withHint(err, "STAT_NOT_FOUND")
		}
		login.Key, signature.Key = key, key
		flags += " --scan --key " + quote(key)
		fmt.Fprintf(out, "The site shows an image with the key %s. ", key)
	}
	use := "login"
	if kind == sandbox.KindSignature {
		use = "sign"
	}
	fmt.Fprintf(out, `The application server waits for the phone. Approve or reject it in another terminal, within a minute:

  %[1]s dsapp phone %[2]s%[4]s
  %[1]s dsapp phone cancel --kind %[3]s%[4]s

`, commandName(os.Args[0]), use, kind, flags)

	var done sandbox.AuthenticatedUser
	if kind == sandbox.KindLogin {
		done, err = application.RequestLogin(ctx, login)
	} else {
		done, err = application.RequestSignature(ctx, signature)
	}
	if err != nil {
		return withHint(err, "STAT_NOT_FOUND")
	}
	fmt.Fprintf(out, "Approved%s.\n", describeApproval(done))
	return nil
}

// phoneFlags returns the flags with which the phone reaches the same sandbox.
func (o *applicationOptions) phoneFlags() string {
	flags := ""
	if o.dir != defaultDir() {
		flags += " --dir " + quote(o.dir)
	}
	if o.authority != "" {
		flags += " --ca " + quote(o.authority)
	}
	if o.gateway != defaultGatewayURL {
		flags += " --gateway " + quote(o.gateway)
	}
	if o.server != defaultServerURL {
		flags += " --server " + quote(o.server)
	}
	return flags
}

func parseFields(pairs []string) ([]sandbox.RequestField, error) {
	var fields []sandbox.RequestField
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" || value == "" {
			return nil, misused("--field is not name=value")
		}
		fields = append(fields, sandbox.RequestField{Key: name, Value: value})
	}
	return fields, nil
}
