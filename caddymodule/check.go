package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// Finding is one thing that CheckConfig found.
type Finding struct {
	// Check is the kind of the check: `configuration`, `placeholder`, `dns`, `connection`, `tls`,
	// `component_type`, `clock`, `redis`, `store`, `disk`, `listen` or `system`.
	Check string `json:"check"`
	// Subject is what was checked: an option, an instance, a server, a file or an address.
	Subject string `json:"subject"`
	// Problem is one line that says what is wrong and what to do.
	Problem string `json:"problem"`
	// Note says that this is no problem, but something that could not be checked.
	Note bool `json:"note,omitempty"`
}

// findings collects what was found. It can be used concurrently.
type findings struct {
	mu  sync.Mutex
	all []Finding
}

func (f *findings) add(check, subject, format string, args ...any) {
	f.put(Finding{Check: check, Subject: subject, Problem: fmt.Sprintf(format, args...)})
}

// note adds something that could not be checked.
func (f *findings) note(check, subject, format string, args ...any) {
	f.put(Finding{Check: check, Subject: subject, Problem: fmt.Sprintf(format, args...), Note: true})
}

func (f *findings) put(x Finding) {
	x.Problem = strings.Join(strings.Fields(x.Problem), " ")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, x)
}

// checkOrder is the order in which findings are returned.
var checkOrder = []string{
	"configuration", "placeholder", "dns", "connection", "tls", "component_type", "clock", "redis", "store", "disk", "listen", "system",
}

// sorted returns the findings, notes last.
func (f *findings) sorted() []Finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	rank := func(x Finding) int {
		n := slices.Index(checkOrder, x.Check)
		if x.Note {
			n += len(checkOrder)
		}
		return n
	}
	slices.SortStableFunc(f.all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Subject, b.Subject))
	})
	return f.all
}

// checkTimeout bounds each part of a check that waits for others.
const checkTimeout = 10 * time.Second

// CheckConfig tries a configuration, JSON of Caddy, against the real world: names, servers,
// stores, files and addresses. It works without a running gateway and beside one, and it
// leaves nothing behind. What it sends to authentication servers has no effect there but
// entries in their logs. What it writes to Redis are values of random names that it removes
// again.
//
// It replaces the logs of this process and keeps modules of the configuration, so it is
// meant for a process that ends afterwards.
func CheckConfig(ctx context.Context, config []byte) []Finding {
	var f findings
	var parsed struct {
		Apps struct {
			DSAPP json.RawMessage `json:"dsapp"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &parsed); err != nil {
		f.add("configuration", "JSON", "cannot be decoded: %v", err)
		return f.sorted()
	}
	if parsed.Apps.DSAPP == nil {
		f.add("configuration", "apps", "there is no app dsapp: name the configuration of a gateway")
		return f.sorted()
	}
	secretsMissing := f.checkPlaceholders(parsed.Apps.DSAPP)
	f.checkMachine()
	app, certificates, err := provisionForCheck(config)
	if err != nil {
		// A placeholder without a value has been told with its name.
		if !secretsMissing {
			f.add("configuration", "apps.dsapp", "%v", err)
		}
		return f.sorted()
	}
	defer func() { _ = app.Cleanup() }()
	f.checkSiteCertificates(certificates)
	var checks sync.WaitGroup
	checks.Go(func() { app.checkServers(ctx, &f) })
	checks.Go(func() { checkStore(ctx, app.store, &f) })
	checks.Go(func() { f.checkListeners(ctx, config) })
	checks.Wait()
	return f.sorted()
}

// provisionForCheck returns the app of a configuration without starting it, and the
// certificates that the configuration names for sites. Logs are discarded, so that files of a
// running gateway are not opened.
func provisionForCheck(config []byte) (*App, []caddytls.Certificate, error) {
	var c caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &c); err != nil {
		return nil, nil, err
	}
	c.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		"default": {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output": "discard"}`)}},
	}}
	ctx, err := caddy.ProvisionContext(&c)
	if err != nil {
		return nil, nil, err
	}
	app, err := ctx.AppIfConfigured(appName)
	if err != nil {
		return nil, nil, err
	}
	certificates, err := siteCertificates(ctx, config)
	return app.(*App), certificates, err
}

// siteCertificates loads the certificates that a configuration names for sites: from files,
// folders, the storage or its own text. It does not have those that Caddy obtains and renews.
func siteCertificates(ctx caddy.Context, config []byte) (all []caddytls.Certificate, err error) {
	var named struct {
		Apps struct {
			TLS struct {
				Certificates caddy.ModuleMap `json:"certificates" caddy:"namespace=tls.certificates"`
			} `json:"tls"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &named); err != nil {
		return nil, err
	}
	loaders, err := ctx.LoadModule(&named.Apps.TLS, "Certificates")
	if err != nil {
		return nil, err
	}
	for _, module := range loaders.(map[string]any) {
		loader, ok := module.(caddytls.CertificateLoader)
		if !ok {
			continue // `automate` names what Caddy obtains
		}
		loaded, err := loader.LoadCertificates()
		if err != nil {
			return nil, err
		}
		all = append(all, loaded...)
	}
	return all, nil
}

// placeholder is a global placeholder with a file or a variable.
var placeholder = regexp.MustCompile(`\{(file|env)\.([^{}]+)\}`)

// checkPlaceholders checks the files and variables that the options of the app name, and
// reports whether one is missing.
func (f *findings) checkPlaceholders(app json.RawMessage) (missing bool) {
	var options any
	if json.Unmarshal(app, &options) != nil {
		return false // provisioning says what is wrong
	}
	walkTexts("", options, func(path, text string) {
		for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
			problem := ""
			if m[1] == "file" {
				problem = fileProblem(m[2])
			} else if value, ok := os.LookupEnv(m[2]); !ok {
				problem = fmt.Sprintf("the environment variable %s is not set: set it for the process, for example with EnvironmentFile= of systemd", m[2])
			} else if value == "" {
				problem = fmt.Sprintf("the environment variable %s is empty: set it to the value of the option", m[2])
			}
			if problem != "" {
				missing = true
				f.add("placeholder", path, "%s", problem)
			}
		}
	})
	return missing
}

// fileProblem returns what is wrong with the file of a placeholder, or "".
func fileProblem(name string) string {
	content, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("the file %s does not exist: create it, or correct the placeholder", name)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("the file %s cannot be read by this user: run the check as the user of the gateway, or give that user the right to read it", name)
	case err != nil:
		return fmt.Sprintf("the file %s cannot be read: %v", name, err)
	case strings.TrimSpace(string(content)) == "":
		return fmt.Sprintf("the file %s is empty: write the secret into it", name)
	}
	return ""
}

// walkTexts calls visit with every text in a JSON value and its path.
func walkTexts(path string, value any, visit func(path, text string)) {
	switch v := value.(type) {
	case string:
		visit(path, v)
	case []any:
		for i, element := range v {
			walkTexts(path+"["+strconv.Itoa(i)+"]", element, visit)
		}
	case map[string]any:
		for _, name := range sortedNames(v) {
			walkTexts(strings.TrimPrefix(path+"."+name, "."), v[name], visit)
		}
	}
}
