package sandboxcmd

import (
	"bytes"
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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

const (
	readHeaderTimeout = 10 * time.Second
	maxInstances      = 9
	// The paths at which the simulated authentication server shows its state.
	pushesPath = "/pushes"
	statePath  = "/state"
)

// sandboxOptions are the flags of `caddy dsapp sandbox`.
type sandboxOptions struct {
	dir          string
	listen       string
	listenServer string
	serverOnly   bool
	gatewayOnly  bool
	servers      []string
	instances    int
}

func newSandboxCommand() *cobra.Command {
	var o sandboxOptions
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Runs the gateway in front of a simulated authentication server",
		Long: `Runs the gateway in front of a simulated authentication server, with fixed API
keys, one user and certificates of its own. It is for development and
demonstrations only.

The gateway stores registrations in a directory, so that they survive a restart.
The simulated authentication server keeps its state in memory. To restart the
gateway while registrations are pending, run the two separately, with the same
directory:

  caddy dsapp sandbox --server-only
  caddy dsapp sandbox --gateway-only --server https://localhost:18888/

With several --instances, all of them have the same users and devices, but each has
its own registrations and pending requests, so that the gateway must find the right
one.

'sandbox request-signature' and 'sandbox request-login' act as the bank's
application server. They need a running sandbox.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c.Flags().Changed); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return o.run(ctx, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", defaultDir(), "directory for the certificates and the gateway's store")
	f.StringVar(&o.listen, "listen", defaultListen, "address of the gateway")
	f.StringVar(&o.listenServer, "listen-server", defaultListenServer, "address of the simulated authentication server; further --instances use the next ports")
	f.IntVar(&o.instances, "instances", 1, "number of simulated authentication servers")
	f.BoolVar(&o.serverOnly, "server-only", false, "run the simulated authentication server only")
	f.BoolVar(&o.gatewayOnly, "gateway-only", false, "run the gateway only, in front of --server")
	f.StringArrayVar(&o.servers, "server", nil, "URL of a running simulated authentication server; can be repeated")
	c.AddCommand(newRequestCommand(sandbox.KindSignature), newRequestCommand(sandbox.KindLogin))
	return c
}

func (o *sandboxOptions) check(changed func(flag string) bool) error {
	switch {
	case o.serverOnly && o.gatewayOnly:
		return errors.New("--server-only and --gateway-only exclude each other")
	case o.gatewayOnly && len(o.servers) == 0:
		return errors.New("--gateway-only needs --server")
	case len(o.servers) > 0 && !o.gatewayOnly:
		return errors.New("--server needs --gateway-only")
	case o.gatewayOnly && changed("listen-server"):
		return errors.New("--gateway-only and --listen-server exclude each other")
	case o.gatewayOnly && changed("instances"):
		return errors.New("--gateway-only and --instances exclude each other")
	case o.instances < 1 || o.instances > maxInstances:
		return fmt.Errorf("--instances must be from 1 to %d", maxInstances)
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

// run runs the sandbox until ctx ends.
func (o *sandboxOptions) run(ctx context.Context, out io.Writer) (err error) {
	if !o.serverOnly {
		if err := checkFree(ctx, o.listen); err != nil {
			return err
		}
	}
	certificates, err := sandbox.NewCertificates(certificateDir(o.dir), hostsOf(o.listen, o.listenServer)...)
	if err != nil {
		return err
	}
	serving := make(chan error, o.instances)
	serverURLs := o.servers
	if !o.gatewayOnly {
		servers, addresses, failure := startServers(o.listenServer, o.instances, certificates, serving)
		defer func() {
			for _, s := range servers {
				err = errors.Join(err, s.Close())
			}
		}()
		if failure != nil {
			return failure
		}
		for _, address := range addresses {
			serverURLs = append(serverURLs, localURL(address)+"/")
		}
	}
	if !o.serverOnly {
		config, err := json.Marshal(o.config(serverURLs, certificates))
		if err != nil {
			return err
		}
		if err := caddy.Load(config, true); err != nil {
			return fmt.Errorf("starting the gateway: %w", err)
		}
		defer func() { err = errors.Join(err, caddy.Stop()) }()
	}
	// One write, so that a reader who sees the first line has the whole text.
	var text bytes.Buffer
	o.explain(&text, serverURLs, certificates)
	if _, err := text.WriteTo(out); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nThe sandbox stops.")
		return nil
	case err := <-serving:
		return fmt.Errorf("simulated authentication server: %w", err)
	}
}

// checkFree fails if another process listens on address. Caddy would share the port with it,
// and each process would get some of the requests.
func checkFree(ctx context.Context, address string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("the gateway cannot listen on %s, the address of --listen: %w", address, err)
	}
	return listener.Close()
}

// startServers starts the simulated authentication servers. It returns the servers that it
// started also if it fails. A server that fails later sends its error to failed.
func startServers(
	listen string, instances int, certificates sandbox.Certificates, failed chan<- error,
) (servers []*http.Server, addresses []string, err error) {
	certificate, err := tls.LoadX509KeyPair(certificates.Certificate, certificates.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("loading the certificate: %w", err)
	}
	instance := sandbox.New(sandbox.Options{
		Users: []sandbox.User{{Name: userID, Domain: domain, StaticPassword: staticPassword, Licenses: 1, StandardLicenses: 1}},
	})
	for i := range instances {
		if i > 0 {
			instance = instance.Replica()
			if listen, err = nextPort(listen); err != nil {
				return servers, nil, err
			}
		}
		listener, err := tls.Listen("tcp", listen, &tls.Config{
			Certificates: []tls.Certificate{certificate},
			MinVersion:   tls.VersionTLS12,
		})
		if err != nil {
			return servers, nil, fmt.Errorf("the simulated authentication server cannot listen on %s, the address of --listen-server: %w", listen, err)
		}
		server := &http.Server{
			Handler:           serverHandler(instance),
			ReadHeaderTimeout: readHeaderTimeout,
			ErrorLog:          log.New(io.Discard, "", 0),
		}
		servers, addresses = append(servers, server), append(addresses, reachableAddress(listen, listener))
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	return servers, addresses, nil
}

// serverHandler serves the SOAP interface and the state for developers.
func serverHandler(s *sandbox.Server) http.Handler {
	m := http.NewServeMux()
	m.Handle("/", s)
	m.Handle(pushesPath, s.PushHandler())
	m.Handle(statePath, s.StateHandler())
	return m
}

// reachableAddress returns the address of a listener: the host of listen, and the port that
// the system chose.
func reachableAddress(listen string, listener net.Listener) string {
	host, _, err := net.SplitHostPort(listen)
	_, port, portErr := net.SplitHostPort(listener.Addr().String())
	if err != nil || portErr != nil {
		return listener.Addr().String()
	}
	return net.JoinHostPort(host, port)
}

// nextPort returns the address of the next instance. Port 0, which stands for any port,
// stays.
func nextPort(address string) (string, error) {
	host, digits, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return "", errors.New("several --instances need a port of digits in --listen-server")
	}
	if port == 0 {
		return address, nil
	}
	return net.JoinHostPort(host, strconv.FormatUint(port+1, 10)), nil
}

// hostsOf returns the hosts of addresses, for which the certificate must be valid.
func hostsOf(addresses ...string) []string {
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

// config returns the configuration of the gateway. It has no admin endpoint, no autosaved
// configuration and its own storage, so that it does not affect another Caddy of the same
// user.
func (o *sandboxOptions) config(serverURLs []string, certificates sandbox.Certificates) object {
	var instances []object
	for i, u := range serverURLs {
		instances = append(instances, object{"name": fmt.Sprintf("sandbox-%d", i+1), "url": u})
	}
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
				"routes": []object{
					{"match": []object{{"path": []string{"/", "/openapi.json"}}}, "handle": []object{{"handler": "dsapp_docs"}}, "terminal": true},
					{"handle": []object{{"handler": "dsapp_gateway"}}},
				},
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
					"instances": instances,
					"tls":       object{"ca": object{"provider": "file", "pem_files": []string{certificates.Authority}}},
				},
			},
		},
	}
}

// localURL returns the URL at which clients on this machine reach a listener on address.
func localURL(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "https://" + net.JoinHostPort(host, port)
}

// explain prints the addresses and keys of the sandbox and commands to try.
func (o *sandboxOptions) explain(out io.Writer, serverURLs []string, certificates sandbox.Certificates) {
	caddy, servers := commandName(os.Args[0]), strings.Join(serverURLs, ", ")
	if o.serverOnly {
		flags := []string{o.dirFlag()}
		for _, u := range serverURLs {
			flags = append(flags, " --server "+quote(u))
		}
		fmt.Fprintf(out, `The simulated authentication server runs. Ctrl-C stops it.

  URL              %s
  CA certificate   %s
  user             %s, domain %s, static password %s

Start the gateway in front of it with

  %s dsapp sandbox --gateway-only%s
`, servers, certificates.Authority, userID, domain, staticPassword, caddy, strings.Join(flags, ""))
		return
	}
	simulated := " (simulated, keeps its state in memory)"
	if o.gatewayOnly {
		simulated = ""
	}
	url := localURL(o.listen)
	gatewayFlag, serverFlag := "", ""
	if url != defaultGatewayURL {
		gatewayFlag = " --gateway " + quote(url)
	}
	// The gateway asks the last server last, which shows that it asks all of them.
	server := serverURLs[len(serverURLs)-1]
	if server != defaultServerURL {
		serverFlag = " --server " + quote(server)
	}
	phone := func(arguments string) string { return caddy + " dsapp phone " + arguments + o.dirFlag() + gatewayFlag }
	application := func(command string) string {
		return caddy + " dsapp sandbox " + command + o.dirFlag() + gatewayFlag + serverFlag
	}
	curl := "curl --cacert " + quote(certificates.Authority)
	fmt.Fprintf(out, `The sandbox runs. Ctrl-C stops it. Nothing in it is a secret; never use it for real users.

  reference               %s/
  gateway                 %s
  front-end key           %s
  back-end key            %s
  user                    %s, domain %s, static password %s
  CA certificate          %s
  authentication server   %s%s
  files                   %s

`, url, url, frontEndKey, backEndKey, userID, domain, staticPassword, certificates.Authority, servers, simulated, o.dir)
	for _, part := range []struct {
		text     string
		commands []string
	}{
		{"Register the user and activate a simulated phone, and see every step:", []string{phone("activate")}},
		{"See the gateway refuse a wrong activation password:", []string{phone("activate --activation-password wrong-password")}},
		{"Request a signature or a login as the bank's application server does, and wait for the phone:", []string{
			application("request-signature"),
			application("request-login"),
		}},
		{"Answer it on the phone, in another terminal:", []string{
			phone("sign") + serverFlag,
			phone("login") + serverFlag,
			phone("cancel --kind signature") + serverFlag,
		}},
		{"Log in with a one-time password of the phone:", []string{phone("authenticate")}},
		{"Only register the user, as the bank's site does:", []string{
			curl + " -u " + backEndKey + `: -H 'Content-Type: application/json' \`,
			fmt.Sprintf(`  -d '{"userID":"%s","domain":"%s","staticPassword":"%s"}' \`, userID, domain, staticPassword),
			"  " + url + "/rest/v2/provisioning/DSAPPSRPRegister",
		}},
		{"Then activate the phone with the identifier and password in the answer:", []string{
			phone("activate --registration-identifier ... --activation-password ..."),
		}},
		{"See the state of the simulated authentication server and its push notifications:", []string{
			curl + " " + quote(strings.TrimSuffix(server, "/")+statePath),
			curl + " " + quote(strings.TrimSuffix(server, "/")+pushesPath),
		}},
	} {
		fmt.Fprintf(out, "%s\n\n  %s\n\n", part.text, strings.Join(part.commands, "\n  "))
	}
}

// goRunBinary matches the path of a binary that `go run` built, or took from Go's build cache.
var goRunBinary = regexp.MustCompile(`/(go-build[0-9]+/b[0-9]+/exe|[0-9a-f]{64}-d)/[^/]+$`)

// commandName returns the shell command that starts this program again. argument is its
// os.Args[0].
func commandName(argument string) string {
	if goRunBinary.MatchString(filepath.ToSlash(argument)) {
		return "go run ./cmd/caddy"
	}
	return quote(argument)
}

// dirFlag returns the flag with which other commands find the files of this sandbox.
func (o *sandboxOptions) dirFlag() string {
	if o.dir == defaultDir() {
		return ""
	}
	return " --dir " + quote(o.dir)
}

// quote quotes s as one word of a shell command line if necessary.
func quote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:@%+=,"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
