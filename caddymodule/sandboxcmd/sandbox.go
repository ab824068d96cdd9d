package sandboxcmd

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

const readHeaderTimeout = 10 * time.Second

// options of `caddy dsapp sandbox`.
type options struct {
	dir          string
	listen       string
	listenServer string
	serverOnly   bool
	gatewayOnly  bool
	server       string
}

func newSandboxCommand() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Runs the gateway in front of a simulated authentication server",
		Long: `Runs the gateway in front of a simulated authentication server, with fixed API
keys, one user and certificates of its own. It is for development and
demonstrations only.

Registrations are kept in a directory and survive a restart of the gateway. The
simulated authentication server keeps its state in memory: to restart the
gateway while registrations are pending, run the two apart, in one directory:

  caddy dsapp sandbox --server-only --listen-server localhost:18888
  caddy dsapp sandbox --gateway-only --server https://localhost:18888/`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c.Flags().Changed("listen-server")); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return o.run(ctx, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", defaultDir(), "directory of the certificates and the gateway's store")
	f.StringVar(&o.listen, "listen", defaultListen, "address of the gateway")
	f.StringVar(&o.listenServer, "listen-server", "localhost:0", "address of the simulated authentication server")
	f.BoolVar(&o.serverOnly, "server-only", false, "run the simulated authentication server only")
	f.BoolVar(&o.gatewayOnly, "gateway-only", false, "run the gateway only, in front of --server")
	f.StringVar(&o.server, "server", "", "URL of a simulated authentication server that runs already")
	return c
}

func (o *options) check(listensServer bool) error {
	switch {
	case o.serverOnly && o.gatewayOnly:
		return errors.New("--server-only and --gateway-only exclude one another")
	case o.gatewayOnly && o.server == "":
		return errors.New("--gateway-only needs --server")
	case o.server != "" && !o.gatewayOnly:
		return errors.New("--server needs --gateway-only")
	case o.gatewayOnly && listensServer:
		return errors.New("--gateway-only and --listen-server exclude one another")
	}
	_, port, err := net.SplitHostPort(o.listen)
	if err != nil || port == "" || port == "0" {
		return errors.New("--listen needs a port, such as in localhost:11080")
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	o.dir = dir
	return nil
}

// run serves until ctx ends.
func (o *options) run(ctx context.Context, out io.Writer) (err error) {
	if !o.serverOnly {
		if err := probe(ctx, o.listen); err != nil {
			return err
		}
	}
	certificates, err := sandbox.NewCertificates(certificateDir(o.dir), namesOf(o.listen, o.listenServer)...)
	if err != nil {
		return err
	}
	serving := make(chan error, 1)
	serverURL := o.server
	if !o.gatewayOnly {
		server, address, err := startServer(o.listenServer, certificates, serving)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		serverURL = localURL(address) + "/"
	}
	if !o.serverOnly {
		config, err := json.Marshal(o.config(serverURL, certificates))
		if err != nil {
			return err
		}
		if err := caddy.Load(config, true); err != nil {
			return fmt.Errorf("starting the gateway: %w", err)
		}
		defer func() { err = errors.Join(err, caddy.Stop()) }()
	}
	o.explain(out, serverURL, certificates)
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nThe sandbox stops.")
		return nil
	case err := <-serving:
		return fmt.Errorf("simulated authentication server: %w", err)
	}
}

// probe fails if something listens on address. Caddy would share the port with
// it, and each would get some of the calls.
func probe(ctx context.Context, address string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("the gateway cannot listen on %s, the address of --listen: %w", address, err)
	}
	return listener.Close()
}

// startServer runs the simulated authentication server until it is closed or
// fails; a failure is sent.
func startServer(listen string, certificates sandbox.Certificates, failed chan<- error) (*http.Server, string, error) {
	certificate, err := tls.LoadX509KeyPair(certificates.Certificate, certificates.Key)
	if err != nil {
		return nil, "", fmt.Errorf("loading the certificate: %w", err)
	}
	listener, err := tls.Listen("tcp", listen, &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
	})
	if err != nil {
		return nil, "", fmt.Errorf("the simulated authentication server cannot listen on %s, the address of --listen-server: %w", listen, err)
	}
	server := &http.Server{
		Handler: sandbox.New(sandbox.Options{
			Users: []sandbox.User{{Name: userID, Domain: domain, StaticPassword: staticPassword}},
		}),
		ReadHeaderTimeout: readHeaderTimeout,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	return server, listener.Addr().String(), nil
}

// namesOf returns the hosts of addresses, which the certificate has to cover.
func namesOf(addresses ...string) []string {
	var names []string
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		ip := net.ParseIP(host)
		if err == nil && host != "" && (ip == nil || !ip.IsUnspecified()) {
			names = append(names, host)
		}
	}
	return names
}

// object is a JSON object.
type object = map[string]any

// config is the gateway's configuration. It leaves another Caddy of the same
// user alone: no admin endpoint, no autosave, a storage of its own.
func (o *options) config(serverURL string, certificates sandbox.Certificates) object {
	return object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"storage": object{"module": "file_system", "root": filepath.Join(o.dir, "caddy")},
		"logging": object{"logs": object{
			"default": object{"level": "WARN", "exclude": []string{"dsapp", "admin"}},
			"dsapp":   object{"level": "INFO", "include": []string{"dsapp"}},
		}},
		"apps": object{
			"http": object{"servers": object{"sandbox": object{
				"listen":                  []string{o.listen},
				"protocols":               []string{"h1", "h2"},
				"automatic_https":         object{"disable": true},
				"tls_connection_policies": []object{{}},
				"routes":                  []object{{"handle": []object{{"handler": "dsapp_gateway"}}}},
			}}},
			"tls": object{"certificates": object{"load_files": []object{
				{"certificate": certificates.Certificate, "key": certificates.Key},
			}}},
			"dsapp": object{
				"api_keys": []object{
					{"name": "sandbox-phones", "class": "front_end", "key": frontEndKey},
					{"name": "sandbox-bank", "class": "back_end", "key": backEndKey},
				},
				"store": object{"backend": "embedded", "path": filepath.Join(o.dir, "dsapp.db")},
				"authentication_servers": object{
					"instances": []object{{"name": "sandbox", "url": serverURL}},
					"tls":       object{"ca": object{"provider": "file", "pem_files": []string{certificates.Authority}}},
				},
			},
		},
	}
}

// localURL is where clients on this machine reach what listens on address.
func localURL(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "https://" + net.JoinHostPort(host, port)
}

// explain tells what runs and what to try.
func (o *options) explain(out io.Writer, serverURL string, certificates sandbox.Certificates) {
	if o.serverOnly {
		fmt.Fprintf(out, `The simulated authentication server runs. Ctrl-C stops it.

  URL              %s
  CA certificate   %s
  user             %s, domain %s, static password %s

Start the gateway in front of it with

  %s dsapp sandbox --gateway-only --server %s%s
`, serverURL, certificates.Authority, userID, domain, staticPassword, program(os.Args[0]), serverURL, o.dirFlag())
		return
	}
	simulated := " (simulated, keeps its state in memory)"
	if o.gatewayOnly {
		simulated = ""
	}
	url := localURL(o.listen)
	fmt.Fprintf(out, `The sandbox runs. Ctrl-C stops it. Nothing in it is a secret; never use it for real users.

  gateway                 %s
  front-end key           %s
  back-end key            %s
  user                    %s, domain %s, static password %s
  CA certificate          %s
  authentication server   %s%s
  files                   %s

Register the user and activate a simulated phone, with every step shown:

  %[13]s dsapp phone activate%[11]s

See the gateway refuse a wrong activation password:

  %[13]s dsapp phone activate%[11]s --activation-password wrong-password

Register the user only, as the bank's site does:

  curl --cacert %[12]s -u %[3]s: -H 'Content-Type: application/json' \
    -d '{"userID":"%[4]s","domain":"%[5]s","staticPassword":"%[6]s"}' \
    %[1]s/rest/v2/provisioning/DSAPPSRPRegister

and activate the phone with what that returns:

  %[13]s dsapp phone activate%[11]s --registration-identifier ... --activation-password ...
`, url, frontEndKey, backEndKey, userID, domain, staticPassword,
		certificates.Authority, serverURL, simulated, o.dir, o.phoneFlags(url, certificates), quote(certificates.Authority),
		program(os.Args[0]))
}

// goRun matches a binary that `go run` built, or kept in Go's build cache.
var goRun = regexp.MustCompile(`/(go-build[0-9]+/b[0-9]+/exe|[0-9a-f]{64}-d)/[^/]+$`)

// program is what starts this program again, which was started as argument.
func program(argument string) string {
	if goRun.MatchString(filepath.ToSlash(argument)) {
		return "go run ./cmd/caddy"
	}
	return quote(argument)
}

// phoneFlags are the flags that the phone needs to find this sandbox.
func (o *options) phoneFlags(url string, certificates sandbox.Certificates) string {
	flags := ""
	if url != defaultGatewayURL {
		flags += " --gateway " + quote(url)
	}
	if certificates.Authority != authorityFile(defaultDir()) {
		flags += " --ca " + quote(certificates.Authority)
	}
	return flags
}

func (o *options) dirFlag() string {
	if o.dir == defaultDir() {
		return ""
	}
	return " --dir " + quote(o.dir)
}

// quote makes s one word of a shell's command line.
func quote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:@%+=,"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
