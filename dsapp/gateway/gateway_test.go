package gateway

import (
	"strings"
	"testing"
	"time"
)

func TestServerTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.now = time.Unix(1547556827, 999)
	got, err := r.ServerTime(t.Context(), theCaller, ServerTimeRequest{})
	if err != nil || got.Time != 1547556827 {
		t.Errorf("result is %+v, %v", got, err)
	}
}

// New refuses invalid configurations, among them a gateway id with which no valid
// activation image could be made.
func TestNew(t *testing.T) {
	t.Parallel()
	good := func() Config {
		return Config{Activation: &fakeActivation{}, Ownership: &fakeOwnership{}, Servers: &fakeServers{}}
	}
	for name, change := range map[string]func(*Config){
		"minimal configuration": func(*Config) {},
		"longest gateway id":    func(c *Config) { c.GatewayID = strings.Repeat("é", 255) },
		"any other code":        func(c *Config) { c.NoSupportCode = new(int32(1)) },
	} {
		c := good()
		change(&c)
		if _, err := New(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for want, spoil := range map[string]func(*Config){
		"activation":                        func(c *Config) { c.Activation = nil },
		"ownership":                         func(c *Config) { c.Ownership = nil },
		"servers":                           func(c *Config) { c.Servers = nil },
		"exchange: must be":                 func(c *Config) { c.Exchange = "mail" },
		"gateway_id: must not contain":      func(c *Config) { c.GatewayID = "a;b" },
		"gateway_id: must":                  func(c *Config) { c.GatewayID = "a\nb" },
		"unknown: must be":                  func(c *Config) { c.UnknownRegistrations = "ignore" },
		"gateway_id: must have at most 255": func(c *Config) { c.GatewayID = strings.Repeat("é", 256) },
		"STAT_NOSUPPORT: must not be 0":     func(c *Config) { c.NoSupportCode = new(int32) },
	} {
		c := good()
		spoil(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}
