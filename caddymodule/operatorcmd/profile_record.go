package operatorcmd

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/solve"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// recordOptions are the flags of `caddy dsapp profile record`.
type recordOptions struct {
	profileOptions
	server           solve.ServerOptions
	listen           string
	certificate, key string
	frontEndKey      string
	output           string
	private          string
	count            int
}

func newRecordCommand() *cobra.Command {
	var o recordOptions
	c := &cobra.Command{
		Use: "record", Short: "Plays the server to a debug phone of a test user, and records",
		Long: `Plays the gateway to a debug phone that activates for a test user, and writes each
exchange to a new file capture-1.json, capture-2.json and so on in --output, which only
its owner can read. Then it ends.

The phone needs the identifier and the password of the flags. It must be a test phone:
this server knows the password, and proves nothing to the phone. Without --profile or
--config it does not need to know what the phone computes; the exchange ends with the
phone's evidence. With one, it goes on to the activation message. A file lacks the
secret value a of the phone, which only its log tells: add it with --private, or to the
file, together with S or K if the phone logs them.

With --zero, the server chooses its values such that some begin with a zero byte, which
tells forms apart that are the same otherwise.

It answers the calls of an activation at the paths of a gateway, and nothing else. At
another address than a loopback one it needs a certificate.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.run(c.Context(), c.OutOrStdout()); err != nil {
				return &caddymodule.Failure{Code: caddymodule.ExitFailed, Err: err}
			}
			return nil
		},
	}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&o.server.Identity, "registration-identifier", "", "identifier of the test user's registration")
	f.StringVar(&o.server.Password, "activation-password", "", "activation password of the test user")
	f.StringVar(&o.server.Group, "group", variant.Groups[0].Name, "group of the phone, without a profile")
	f.StringSliceVar(&o.server.Zero, "zero", nil, "values that begin with a zero byte: salt, and B or S; S needs a profile")
	f.StringVar(&o.server.Message, "message", strings.Repeat("0123456789ABCDEF", 4), "activation message to encrypt for the phone, with a profile")
	f.StringVar(&o.listen, "listen", "localhost:11090", "address to listen on")
	f.StringVar(&o.certificate, "certificate", "", "PEM file with the certificate; without it, the server speaks HTTP")
	f.StringVar(&o.key, "certificate-key", "", "PEM file with the key of the certificate")
	f.StringVar(&o.frontEndKey, "front-end-key", "", "front-end API key that the phone must have (default any)")
	f.StringVar(&o.output, "output", ".", "directory for the captures")
	f.StringVar(&o.private, "private", "", "secret value a of a debug phone whose a is fixed, in hexadecimal digits")
	f.IntVar(&o.count, "count", 1, "number of exchanges to record")
	c.MarkFlagsRequiredTogether("certificate", "certificate-key")
	return caddymodule.WithExitCodes(c, 0, 0)
}

// recorder is the interface of a gateway that records exchanges. All operations but those of an
// activation are missing, and are not reached.
type recorder struct {
	restapi.Operations
	o       *recordOptions
	server  *solve.Server
	private []byte
	out     io.Writer
	end     context.CancelCauseFunc

	mu       sync.Mutex
	recorded int
	proved   bool // in the last exchange
}

// run listens until all exchanges are recorded or the context ends.
func (o *recordOptions) run(ctx context.Context, out io.Writer) error {
	r := &recorder{o: o, out: out}
	for _, text := range []struct{ flag, value string }{{"registration-identifier", o.server.Identity}, {"activation-password", o.server.Password}} {
		if n := len(text.value); n < 4 || n > 64 || strings.ContainsFunc(text.value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("--%s must have 4 to 64 printable ASCII characters", text.flag)
		}
	}
	if o.count < 1 || o.count > maxCaptures {
		return fmt.Errorf("--count must be 1 to %d", maxCaptures)
	}
	if o.server.Message == "" {
		return errors.New("--message must not be empty")
	}
	if o.profile != "" || o.config != "" {
		profiles, err := o.read()
		if err != nil {
			return err
		}
		if len(profiles) > 1 {
			return fmt.Errorf("%s has %d profiles: write one to a file and name it with --profile", o.config, len(profiles))
		}
		o.server.Profile = &profiles[0].Variant
	}
	private := o.private
	if len(private)%2 == 1 {
		private = "0" + private
	}
	var err error
	if r.private, err = hex.DecodeString(private); err != nil {
		return errors.New("--private must have hexadecimal digits")
	}
	if r.server, err = solve.NewServer(o.server); err != nil {
		return err
	}
	handler, err := restapi.New(restapi.Config{Operations: r, Keys: r, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	listener, err := o.listener(ctx)
	if err != nil {
		return err
	}
	ctx, r.end = context.WithCancelCause(ctx)
	server := &http.Server{Handler: onlyActivation(handler), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	scheme := "http"
	if o.certificate != "" {
		scheme = "https"
	}
	fmt.Fprintf(out, "Listening on %s://%s for the activation of the test user.\n", scheme, listener.Addr())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// The last answer is on its way.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, errRecorded) {
		return cause
	}
	return nil
}

// addDeviceWait is how long to wait for the call after the last exchange, which shows that the phone
// has accepted the answer.
const addDeviceWait = 10 * time.Second

// errRecorded ends the server when everything is recorded.
var errRecorded = errors.New("everything is recorded")

// listener listens on the address of the flags.
func (o *recordOptions) listener(ctx context.Context) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	if address, ok := l.Addr().(*net.TCPAddr); o.certificate == "" && (!ok || !address.IP.IsLoopback()) {
		return nil, errors.Join(errors.New("--listen: another address than a loopback one needs --certificate: the exchange does not hide the identifier"), l.Close())
	}
	if o.certificate == "" {
		return l, nil
	}
	pair, err := tls.LoadX509KeyPair(o.certificate, o.key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--certificate: %w", err), l.Close())
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}), nil
}

// activationServices are the services of an activation that a recorder has.
var activationServices = []string{"DSAPPSRPGenerateEphemeralKey", "DSAPPSRPGenerateActivationData", "MdlAddDevice"}

// onlyActivation serves these services, and nothing else.
func onlyActivation(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(activationServices, path.Base(r.URL.Path)) {
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Lookup accepts the front-end key of the flags, or any.
func (r *recorder) Lookup(key string) (apikey.Key, bool) {
	if r.o.frontEndKey != "" && subtle.ConstantTimeCompare([]byte(key), []byte(r.o.frontEndKey)) != 1 {
		return apikey.Key{}, false
	}
	return apikey.Key{Name: "debug phone", Class: apikey.FrontEnd, Hash: apikey.Hash(key)}, true
}

// wrongProof is the answer to everything but the exchange of the test user.
func wrongProof() error {
	return &gateway.Refusal{Codes: soap.FailureCodes("STAT_INVCREDENTIALS", 1000)}
}

// digits are hexadecimal digits in the case of the profile.
func (r *recorder) digits(b []byte) string {
	digits := hex.EncodeToString(b)
	if p := r.o.server.Profile; p != nil && p.HexCase == variant.LowerCase {
		return digits
	}
	return strings.ToUpper(digits)
}

// GenerateEphemeralKey begins an exchange.
func (r *recorder) GenerateEphemeralKey(_ context.Context, _ gateway.Caller, q gateway.GenerateEphemeralKeyRequest) (result gateway.GenerateEphemeralKeyResult, err error) {
	if string(q.RegistrationIdentifier) != r.o.server.Identity {
		return result, wrongProof()
	}
	public, err := decode(string(q.ClientPublic))
	if err != nil {
		return result, &gateway.InvalidError{Member: "clientEphemeralPublicKey", Problem: err.Error()}
	}
	serverPublic, salt, err := r.server.Begin(public)
	if err != nil {
		return result, &gateway.InvalidError{Member: "clientEphemeralPublicKey", Problem: err.Error()}
	}
	return gateway.GenerateEphemeralKeyResult{ServerPublic: r.digits(serverPublic), Salt: r.digits(salt)}, nil
}

// GenerateActivationData records an exchange, and answers if a profile is known.
func (r *recorder) GenerateActivationData(_ context.Context, _ gateway.Caller, q gateway.GenerateActivationDataRequest) (result gateway.GenerateActivationDataResult, err error) {
	if string(q.RegistrationIdentifier) != r.o.server.Identity {
		return result, wrongProof()
	}
	evidence, err := decode(string(q.ClientEvidence))
	if err != nil {
		return result, &gateway.InvalidError{Member: "clientEvidenceMessage", Problem: err.Error()}
	}
	c, answer, err := r.server.Prove(evidence)
	if err != nil {
		return result, wrongProof()
	}
	c.Private = r.private
	if err := r.write(c, answer != nil); err != nil {
		return result, err
	}
	if answer == nil {
		return result, wrongProof()
	}
	return gateway.GenerateActivationDataResult{
		ServerEvidence: r.digits(answer.ServerEvidence),
		LicenseActivationMessage: &form.Sealed{
			Data: strings.ToUpper(hex.EncodeToString(answer.Item.Data)), Counter: strings.ToUpper(hex.EncodeToString(answer.Item.Counter)), MAC: strings.ToUpper(hex.EncodeToString(answer.Item.MAC)),
		},
	}, nil
}

// AddDevice tells that the phone has accepted the answer to its evidence.
func (r *recorder) AddDevice(_ context.Context, _ gateway.Caller, q gateway.AddDeviceRequest) (result gateway.AddDeviceResult, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if string(q.RegistrationIdentifier) != r.o.server.Identity || !r.proved {
		return result, wrongProof()
	}
	fmt.Fprintln(r.out, "The phone has accepted M2 and the activation message: it asks to add a device.")
	if r.recorded == r.o.count {
		r.end(errRecorded)
	}
	return result, wrongProof()
}

// write writes a capture to the next file.
func (r *recorder) write(c solve.Capture, proved bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recorded == r.o.count {
		return wrongProof()
	}
	name := filepath.Join(r.o.output, fmt.Sprintf("capture-%d.json", r.recorded+1))
	if err := solve.WriteFile(name, c); err != nil {
		r.end(err)
		return &gateway.Failure{Kind: gateway.Internal, Err: err}
	}
	r.recorded++
	r.proved = proved
	outcome := "Recorded"
	switch {
	case r.o.server.Profile != nil && proved:
		outcome = "The phone computes M1 by the profile. Recorded"
	case r.o.server.Profile != nil:
		outcome = "The phone does not compute M1 by the profile. Recorded"
	}
	fmt.Fprintf(r.out, "%s: %s\n", outcome, name)
	if len(r.private) == 0 {
		fmt.Fprintln(r.out, "Add the member a from the log of the phone, and S or K if it logs them.")
	}
	if r.recorded == r.o.count {
		wait := time.Duration(0)
		if proved {
			wait = addDeviceWait
		}
		time.AfterFunc(wait, func() { r.end(errRecorded) })
	}
	return nil
}

// decode decodes hexadecimal digits, whose number may be odd.
func decode(digits string) ([]byte, error) {
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, errors.New("must have hexadecimal digits")
	}
	return b, nil
}
