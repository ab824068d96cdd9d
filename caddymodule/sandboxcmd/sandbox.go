package sandboxcmd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

const (
	readHeaderTimeout = 10 * time.Second
	maxInstances      = 9
	maxUsers          = 1000
	// httpServer is the name of the gateway's server in the configuration.
	httpServer = "sandbox"
	// The paths at which the simulated authentication server shows its state.
	pushesPath = "/pushes"
	statePath  = "/state"
)

// sandboxOptions are the flags of `caddy dsapp sandbox`.
type sandboxOptions struct {
	dir           string
	listen        string
	listenServer  string
	listenControl string
	serverOnly    bool
	gatewayOnly   bool
	servers       []string
	instances     int
	users         int
	timeout       time.Duration
	readyFile     string
	quiet         bool
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

The control interface has failures, locks and users of the simulated authentication
server. It listens on loopback only. docs/sandbox.md describes it.

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
	f.StringVar(&o.listen, "listen", defaultListen, "address of the gateway; with port 0, any free port")
	f.StringVar(&o.listenServer, "listen-server", "", "address of the simulated authentication server; further --instances use the next ports (default "+
		defaultListenServer+", or any free port if --listen is given)")
	f.StringVar(&o.listenControl, "listen-control", "", "address of the control interface, on loopback (default "+
		defaultListenControl+", or any free port if --listen is given)")
	f.IntVar(&o.instances, "instances", 1, "number of simulated authentication servers")
	f.BoolVar(&o.serverOnly, "server-only", false, "run the simulated authentication server only")
	f.BoolVar(&o.gatewayOnly, "gateway-only", false, "run the gateway only, in front of --server")
	f.StringArrayVar(&o.servers, "server", nil, "URL of a running simulated authentication server; can be repeated")
	f.IntVar(&o.users, "users", 1, "number of users: "+userID+", user-2, user-3 and so on, all in "+domain+" and with the static password "+staticPassword)
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "how long the gateway waits for the simulated authentication server")
	f.StringVar(&o.readyFile, "ready-file", "", "file that is written when everything listens and removed at the end: addresses, API keys, CA and users in JSON")
	f.BoolVar(&o.quiet, "quiet", false, "print errors only")
	c.AddCommand(newRequestCommand(sandbox.KindSignature), newRequestCommand(sandbox.KindLogin))
	return c
}

func (o *sandboxOptions) check(changed func(flag string) bool) error {
	for _, x := range []struct {
		both       bool
		name, flag string
	}{
		{o.serverOnly && o.gatewayOnly, "server-only", "gateway-only"},
		{o.gatewayOnly && changed("listen-server"), "gateway-only", "listen-server"},
		{o.gatewayOnly && changed("listen-control"), "gateway-only", "listen-control"},
		{o.gatewayOnly && changed("instances"), "gateway-only", "instances"},
		{o.gatewayOnly && changed("users"), "gateway-only", "users"},
		{o.serverOnly && changed("timeout"), "server-only", "timeout"},
	} {
		if x.both {
			return fmt.Errorf("--%s and --%s exclude each other", x.name, x.flag)
		}
	}
	switch {
	case o.gatewayOnly && len(o.servers) == 0:
		return errors.New("--gateway-only needs --server")
	case len(o.servers) > 0 && !o.gatewayOnly:
		return errors.New("--server needs --gateway-only")
	case o.instances < 1 || o.instances > maxInstances:
		return fmt.Errorf("--instances must be from 1 to %d", maxInstances)
	case o.users < 1 || o.users > maxUsers:
		return fmt.Errorf("--users must be from 1 to %d", maxUsers)
	case o.timeout <= 0:
		return errors.New("--timeout must be positive")
	}
	if _, port, err := net.SplitHostPort(o.listen); err != nil || port == "" {
		return errors.New("--listen needs a port, such as in localhost:11080")
	}
	if changed("listen") {
		o.listenServer, o.listenControl = cmp.Or(o.listenServer, anyPort), cmp.Or(o.listenControl, anyPort)
	}
	o.listenServer, o.listenControl = cmp.Or(o.listenServer, defaultListenServer), cmp.Or(o.listenControl, defaultListenControl)
	if o.readyFile != "" {
		var err error
		if o.readyFile, err = filepath.Abs(o.readyFile); err != nil {
			return err
		}
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
	if _, port, _ := net.SplitHostPort(o.listen); !o.serverOnly && port != "0" {
		if err := checkFree(ctx, o.listen); err != nil {
			return err
		}
	}
	certificates, err := sandbox.NewCertificates(certificateDir(o.dir), hostsOf(o.listen, o.listenServer)...)
	if err != nil {
		return err
	}
	if o.readyFile != "" {
		// That of a sandbox that was killed.
		if err := os.Remove(o.readyFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("--ready-file: %w", err)
		}
	}
	serving := make(chan error, o.instances+1)
	reached := addresses{Servers: o.servers, Authority: certificates.Authority, Dir: o.dir}
	if !o.gatewayOnly {
		reached.Users = o.accounts()
		started, failure := o.startServers(certificates, serving)
		defer func() {
			for _, s := range started.servers {
				err = errors.Join(err, s.Close())
			}
		}()
		if failure != nil {
			return failure
		}
		reached.Servers, reached.Control = started.urls, started.control
	}
	if !o.serverOnly {
		config, err := json.Marshal(o.config(reached.Servers, certificates))
		if err != nil {
			return err
		}
		if err := caddy.Load(config, true); err != nil {
			return fmt.Errorf("starting the gateway: %w", err)
		}
		defer func() { err = errors.Join(err, caddy.Stop()) }()
		if reached.Gateway, err = gatewayURL(o.listen); err != nil {
			return err
		}
		reached.FrontEndKey, reached.BackEndKey = frontEndKey, backEndKey
	}
	if !o.quiet {
		// One write, so that a reader who sees the first line has the whole text.
		var text bytes.Buffer
		o.explain(&text, reached)
		if _, err := text.WriteTo(out); err != nil {
			return err
		}
	}
	if o.readyFile != "" {
		if err := writePrivate(o.readyFile, reached); err != nil {
			return fmt.Errorf("--ready-file: %w", err)
		}
		defer func() { err = errors.Join(err, os.Remove(o.readyFile)) }()
	}
	select {
	case <-ctx.Done():
		if !o.quiet {
			fmt.Fprintln(out, "\nThe sandbox stops.")
		}
		return nil
	case err := <-serving:
		return fmt.Errorf("simulated authentication server: %w", err)
	}
}

// gatewayURL returns the URL of the running gateway, whose port the system may have chosen.
func gatewayURL(listen string) (string, error) {
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		return "", fmt.Errorf("finding the gateway's address: %w", err)
	}
	for _, listener := range app.(*caddyhttp.App).Servers[httpServer].Listeners() {
		return localURL(reachableAddress(listen, listener)), nil
	}
	return "", errors.New("the gateway does not listen")
}

// accounts returns the users.
func (o *sandboxOptions) accounts() []account {
	var all []account
	for i := range o.users {
		name := userID
		if i > 0 {
			name = fmt.Sprintf("user-%d", i+1)
		}
		all = append(all, account{name, domain, staticPassword})
	}
	return all
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

// started are the simulated authentication servers and their control interface.
type started struct {
	servers []*http.Server
	urls    []string
	control string
}

// startServers starts the simulated authentication servers and their control interface. It
// returns what it started also if it fails. A server that fails later sends its error to failed.
func (o *sandboxOptions) startServers(certificates sandbox.Certificates, failed chan<- error) (s started, err error) {
	certificate, err := tls.LoadX509KeyPair(certificates.Certificate, certificates.Key)
	if err != nil {
		return s, fmt.Errorf("loading the certificate: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	serve := func(server *http.Server, listener net.Listener) {
		server.ReadHeaderTimeout, server.ErrorLog = readHeaderTimeout, log.New(io.Discard, "", 0)
		s.servers = append(s.servers, server)
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	var users []sandbox.User
	for _, a := range o.accounts() {
		users = append(users, sandbox.User{Name: a.UserID, Domain: a.Domain, StaticPassword: a.StaticPassword, Licenses: 1, StandardLicenses: 1})
	}
	instances := []*sandbox.Server{sandbox.New(sandbox.Options{Users: users})}
	listen := o.listenServer
	for i := range o.instances {
		if i > 0 {
			instances = append(instances, instances[0].Replica())
			if listen, err = nextPort(listen); err != nil {
				return s, err
			}
		}
		listener, err := tls.Listen("tcp", listen, config)
		if err != nil {
			return s, fmt.Errorf("the simulated authentication server cannot listen on %s, the address of --listen-server: %w", listen, err)
		}
		s.urls = append(s.urls, localURL(reachableAddress(listen, listener))+"/")
		server := &http.Server{Handler: serverHandler(instances[i]), ConnState: instances[i].RefuseConnections} //nolint:gosec // serve sets the timeout
		// Commands that come over a connection that is open already could not be refused.
		server.SetKeepAlivesEnabled(false)
		serve(server, listener)
	}
	listener, err := listenControl(o.listenControl)
	if err != nil {
		return s, err
	}
	s.control = "http://" + reachableAddress(o.listenControl, listener)
	serve(&http.Server{Handler: sandbox.ControlHandler(instances...)}, listener) //nolint:gosec // serve sets the timeout
	return s, nil
}

// listenControl listens on an address of loopback and on no other.
func listenControl(address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("the control interface cannot listen on %s, the address of --listen-control: %w", address, err)
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return nil, errors.Join(errors.New("--listen-control is not on loopback, such as "+defaultListenControl+
			": whoever reaches the control interface controls the simulated authentication server"), listener.Close())
	}
	return listener, nil
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
	others, gateway := "WARN", "INFO"
	if o.quiet {
		others, gateway = "ERROR", "ERROR"
	}
	var instances []object
	for i, u := range serverURLs {
		instances = append(instances, object{"name": fmt.Sprintf("sandbox-%d", i+1), "url": u})
	}
	return object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"storage": object{"module": "file_system", "root": filepath.Join(o.dir, "caddy")},
		"logging": object{"logs": object{
			"default": object{"level": others, "exclude": []string{"dsapp", "admin"}},
			"dsapp":   object{"level": gateway, "include": []string{"dsapp"}},
		}},
		"apps": object{
			// A console may wait for the outcome of a request when the sandbox stops.
			"http": object{"grace_period": "1s", "servers": object{httpServer: object{
				"listen":                  []string{o.listen},
				"protocols":               []string{"h1", "h2"},
				"automatic_https":         object{"disable": true},
				"tls_connection_policies": []object{{}},
				"routes": []object{
					{"handle": []object{
						{"handler": "dsapp_sandbox_docs", "server": serverURLs[0], "dir": o.dir},
						{"handler": "dsapp_gateway"},
					}},
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
					"timeout":   o.timeout.String(),
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
func (o *sandboxOptions) explain(out io.Writer, a addresses) {
	caddy, servers := commandName(os.Args[0]), strings.Join(a.Servers, ", ")
	user := fmt.Sprintf("%s, domain %s, static password %s", userID, domain, staticPassword)
	if o.users > 1 {
		user += fmt.Sprintf("; user-2 to user-%d likewise", o.users)
	}
	if o.serverOnly {
		flags := []string{o.dirFlag()}
		for _, u := range a.Servers {
			flags = append(flags, " --server "+quote(u))
		}
		fmt.Fprintf(out, `The simulated authentication server runs. Ctrl-C stops it.

  URL              %s
  control          %s
  CA certificate   %s
  user             %s

Start the gateway in front of it with

  %s dsapp sandbox --gateway-only%s
`, servers, a.Control, a.Authority, user, caddy, strings.Join(flags, ""))
		return
	}
	control := "\n  control                 " + a.Control
	simulated := " (simulated, keeps its state in memory)"
	if o.gatewayOnly {
		control, simulated = "", ""
	}
	url := a.Gateway
	gatewayFlag, serverFlag := "", ""
	if url != defaultGatewayURL {
		gatewayFlag = " --gateway " + quote(url)
	}
	// The gateway asks the last server last, which shows that it asks all of them.
	server := a.Servers[len(a.Servers)-1]
	if server != defaultServerURL {
		serverFlag = " --server " + quote(server)
	}
	phone := func(arguments string) string { return caddy + " dsapp phone " + arguments + o.dirFlag() + gatewayFlag }
	application := func(command string) string {
		return caddy + " dsapp sandbox " + command + o.dirFlag() + gatewayFlag + serverFlag
	}
	curl := "curl --cacert " + quote(a.Authority)
	fmt.Fprintf(out, `The sandbox runs. Ctrl-C stops it. Nothing in it is a secret; never use it for real users.

  reference               %s/
  console                 %s/console.html
  gateway                 %s
  front-end key           %s
  back-end key            %s
  user                    %s
  CA certificate          %s
  authentication server   %s%s%s
  files                   %s

`, url, url, url, frontEndKey, backEndKey, user, a.Authority, servers, simulated, control, o.dir)
	type part struct {
		text     string
		commands []string
	}
	parts := []part{
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
	}
	if a.Control != "" {
		parts = append(parts, part{"Make the next registration fail, and unlock the user, as docs/sandbox.md describes:", []string{
			`curl -d '{"operation":"PROVISIONCMD_MDL_REGISTER","kind":"fault","times":1}' ` + a.Control + "/control/failures",
			fmt.Sprintf(`curl -X PATCH -d '{"userID":"%s","locked":false}' %s/control/users`, userID, a.Control),
		}})
	}
	for _, part := range parts {
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
