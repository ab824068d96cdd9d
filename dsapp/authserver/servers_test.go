package authserver

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// ParseURL and New accept the https addresses of servers in one normalized form. The error about
// another text does not contain it.
func TestURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://OAS1.example:8888":   "https://oas1.example:8888/",
		"https://[2001:DB8::1]/soap":  "https://[2001:db8::1]/soap",
		"http://oas1:8888/":           "must be an address such as https://host:8888/",
		"https://":                    "must be an address such as https://host:8888/",
		"https://oas1:8888/ ":         "must have no white space",
		"https://oas%251:8888/":       "must be an address such as https://host:8888/",
		"https://bücher.example/":     "must have a host name in ASCII, such as xn--bcher-kva.example for bücher.example",
		"https://\u212Aiel.example/":  "must have a host name in ASCII, such as xn--bcher-kva.example for bücher.example",
		"https://me:SECRET@oas1:8888": "must have no user, query or fragment",
		"https://oas1/?a=SECRET":      "must have no user, query or fragment",
		"https://oas1:0/":             "must have a port from 1 to 65535, or none",
		"https://oas1:65536/":         "must have a port from 1 to 65535, or none",
	} {
		u, err := ParseURL(text)
		if err == nil {
			_, err = New(Config{Timeout: time.Second, Instances: []Instance{{Name: "primary", URL: u, Transport: transport(refusedDial), MaxConnections: 1}}})
		}
		wrong, refused := errors.AsType[*option.Error](err)
		if refused && (wrong.Problem != want || !strings.HasSuffix(wrong.Name, "url")) || !refused && u.String() != want {
			t.Errorf("%s: %v, error %v", text, u, err)
		}
	}
}

// New refuses options with wrong values and names the option.
func TestNew(t *testing.T) {
	t.Parallel()
	address := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	good := Instance{Name: "primary", URL: address("https://oas1:8888/"), Transport: transport(refusedDial), MaxConnections: 1}
	for problem, change := range map[string]func(c *Config){
		"instances: at least":                               func(c *Config) { c.Instances = nil },
		"instances[0].name: must have 1 to 64 letters":      func(c *Config) { c.Instances[0].Name = "" },
		"instances[0].name: must have 1 to 64":              func(c *Config) { c.Instances[0].Name = "a;b" },
		"letters, digits, dots":                             func(c *Config) { c.Instances[0].Name = strings.Repeat("x", 65) },
		"instances[1].name: is the name of an earlier":      func(c *Config) { c.Instances = append(c.Instances, good) },
		"transport is missing":                              func(c *Config) { c.Instances[0].Transport = nil },
		"max_connections: must be from 1":                   func(c *Config) { c.Instances[0].MaxConnections = 0 },
		"max_queue: must be from 0":                         func(c *Config) { c.Instances[0].MaxQueue = -1 },
		"reserved_connections: must be from 0 to 0":         func(c *Config) { c.Instances[0].ReservedConnections = 1 },
		"reserved_connections: must":                        func(c *Config) { c.Instances[0].ReservedConnections = -1 },
		"max_waiting: must be from 1 to 1":                  func(c *Config) { c.Instances[0].MaxWaiting = -1 },
		"soap_version: must be":                             func(c *Config) { c.SOAPVersion = "2" },
		"timeout: must be":                                  func(c *Config) { c.Timeout = 0 },
		"deployment: must be":                               func(c *Config) { c.Deployment = "shared" },
		"policy: must be":                                   func(c *Config) { c.Policy = "random" },
		"component_types.authentication: must have":         func(c *Config) { c.ComponentTypes.Authentication = strings.Repeat("x", 61) },
		"component_types.provisioning: must have":           func(c *Config) { c.ComponentTypes.Provisioning = "\x00" },
		"attributes.instance_activation_message: must have": func(c *Config) { c.Attributes.InstanceActivationMessage = "<a>" },
	} {
		c := Config{Instances: []Instance{good}, Timeout: time.Second}
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v", problem, err)
		}
	}
	if _, err := New(Config{Instances: []Instance{good}, Timeout: time.Second}); err != nil {
		t.Error(err)
	}
}
