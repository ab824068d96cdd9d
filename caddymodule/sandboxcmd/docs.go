package sandboxcmd

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/dsapp-gateway/dsapp-gateway/clients/typescript"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi/apidoc"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

func init() {
	caddy.RegisterModule(new(DocsHandler))
}

// The calls with which the console has the bank act.
const (
	registerPath = "/sandbox/register"
	requestPath  = "/sandbox/request"
	outcomePath  = "/sandbox/outcome"
)

// maxBankCall is the maximum size of the body of such a call, in bytes.
const maxBankCall = 1 << 12

// consoleScript connects the console with the simulated device and with this handler.
//
//go:embed console.js
var consoleScript []byte

// DocsHandler serves the reference of the sandbox at the root of its site, with a console that
// has the simulated device, and acts as the bank for it: it registers the sandbox's user and
// requests logins and signatures. The page needs no back-end key for that. Other requests go to
// the next handler, which is the gateway.
type DocsHandler struct {
	// The URL of the simulated authentication server that is asked for logins and signatures.
	Server string `json:"server"`
	// The directory of the sandbox, which has the certificate of its CA.
	Dir string `json:"dir"`

	reference   *apidoc.Reference
	application *sandbox.ApplicationServer
	protection  *http.CrossOriginProtection
}

// CaddyModule returns the Caddy module information.
func (*DocsHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.dsapp_sandbox_docs",
		New: func() caddy.Module { return new(DocsHandler) },
	}
}

// Provision generates the pages and reads the certificate of the CA.
func (d *DocsHandler) Provision(caddy.Context) (err error) {
	d.protection = http.NewCrossOriginProtection()
	client, err := (&connectionOptions{dir: d.Dir}).client(0)
	if err != nil {
		return err
	}
	d.application = &sandbox.ApplicationServer{URL: d.Server, Client: client}
	d.reference, err = apidoc.NewReference(newConsole())
	return err
}

// newConsole returns the console with the simulated device.
func newConsole() *apidoc.Console {
	return &apidoc.Console{Modules: map[string][]byte{"sandbox.js": consoleScript, "sandbox-device.js": typescript.SandboxDevice}}
}

// Cleanup closes the connections to the authentication server.
func (d *DocsHandler) Cleanup() error {
	d.application.Client.CloseIdleConnections()
	return nil
}

// documentPaths are the paths of the reference.
var documentPaths = []string{"/", "/openapi.json", "/console.html", "/console.js", "/dsapp.js", "/sandbox.js", "/sandbox-device.js"}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (d *DocsHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if slices.Contains(documentPaths, r.URL.Path) {
		d.reference.ServeHTTP(w, r)
		return nil
	}
	if r.URL.Path != registerPath && r.URL.Path != requestPath && r.URL.Path != outcomePath {
		return next.ServeHTTP(w, r)
	}
	c, err := d.read(r)
	switch {
	case err != nil:
		return writeAnswer(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
	case r.URL.Path == registerPath:
		return register(w, r, c, next)
	}
	act := d.request
	if r.URL.Path == outcomePath {
		act = d.outcome
	}
	answer, err := act(r.Context(), c)
	if err != nil {
		return writeAnswer(w, http.StatusBadGateway, map[string]string{"error": err.Error()})
	}
	return writeAnswer(w, http.StatusOK, answer)
}

// bankCall is what the console asks the bank for.
type bankCall struct {
	// LicenseType of a registration, mdl or standard.
	LicenseType string `json:"licenseType"`
	// Kind of a request, and the device that has to answer it.
	Kind         sandbox.Kind `json:"kind"`
	SerialNumber string       `json:"serialNumber"`
	// Key of the request whose outcome is asked for.
	Key string `json:"key"`
}

// read reads a call. It refuses those that a browser makes for the page of another origin.
func (d *DocsHandler) read(r *http.Request) (c bankCall, err error) {
	if r.Method != http.MethodPost {
		return c, errors.New("the method has to be POST")
	}
	if d.protection.Check(r) != nil {
		return c, errors.New("calls from the page of another origin are refused")
	}
	decoder := json.NewDecoder(io.LimitReader(r.Body, maxBankCall))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&c) != nil {
		return c, errors.New("the body is not a JSON object with licenseType, kind, serialNumber and key")
	}
	if r.URL.Path != registerPath && c.Kind != sandbox.KindLogin && c.Kind != sandbox.KindSignature {
		return c, errors.New("kind has to be login or signature")
	}
	return c, nil
}

// register has the gateway register the sandbox's user, as the bank's site does.
func register(w http.ResponseWriter, r *http.Request, c bankCall, next caddyhttp.Handler) error {
	body, err := json.Marshal(map[string]string{"userID": userID, "domain": domain, "staticPassword": staticPassword, "licenseType": c.LicenseType})
	if err != nil {
		return err
	}
	call := r.Clone(r.Context())
	call.URL.Path, call.URL.RawPath = "/rest/v2/provisioning/DSAPPSRPRegister", ""
	call.Body, call.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	call.Header.Set("Content-Type", "application/json")
	call.SetBasicAuth(backEndKey, "")
	return next.ServeHTTP(w, call)
}

// request requests a login or a signature and returns its key, which the bank's site shows as an
// image. A login is for the device that was activated last.
func (d *DocsHandler) request(ctx context.Context, c bankCall) (map[string]string, error) {
	var key string
	var err error
	if c.Kind == sandbox.KindLogin {
		key, err = d.application.PrepareLogin(ctx, sandbox.LoginRequest{UserID: userID, Domain: domain, Message: "Log in to the bank"})
	} else {
		key, err = d.application.PrepareSignature(ctx, sandbox.SignatureRequest{
			UserID: userID, Domain: domain, SerialNumber: c.SerialNumber, Title: "Transfer",
			Fields: []sandbox.RequestField{{Key: "Amount", Value: "250.00 EUR"}, {Key: "To", Value: "Bob"}},
		})
	}
	return map[string]string{"key": key}, err
}

// outcome waits until a phone has answered a request, and returns in words what it did.
func (d *DocsHandler) outcome(ctx context.Context, c bankCall) (map[string]string, error) {
	var done sandbox.AuthenticatedUser
	var err error
	if c.Kind == sandbox.KindLogin {
		done, err = d.application.RequestLogin(ctx, sandbox.LoginRequest{UserID: userID, Domain: domain, Key: c.Key})
	} else {
		done, err = d.application.RequestSignature(ctx, sandbox.SignatureRequest{UserID: userID, Domain: domain, Key: c.Key})
	}
	if refused, ok := errors.AsType[*sandbox.RefusalError](err); ok {
		return map[string]string{"outcome": "not approved: " + refused.ResultCodes.StatusCodeEnum}, nil
	}
	return map[string]string{"outcome": "approved" + describeApproval(done)}, err
}

func writeAnswer(w http.ResponseWriter, status int, answer map[string]string) error {
	content, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(content)
	return err
}

var (
	_ caddy.Provisioner           = (*DocsHandler)(nil)
	_ caddy.CleanerUpper          = (*DocsHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*DocsHandler)(nil)
)
