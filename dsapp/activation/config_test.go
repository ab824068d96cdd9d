package activation

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// named is a profile with another name.
type named struct {
	Profile

	name string
}

func (n named) Name() string { return n.name }

// New applies defaults and refuses what makes no sense.
func TestNew(t *testing.T) {
	t.Parallel()
	least := Config{Open: func(context.Context) (Store, *seal.Keyring, error) { return nil, nil, nil }, Profiles: allProfiles()}
	s, err := New(least)
	if err != nil {
		t.Fatal(err)
	}
	if s.registrationLifetime != 10*time.Minute || s.handshakeLifetime != 2*time.Minute ||
		s.maxAttempts != 3 || s.maxActivations != 3 || s.password.length != 8 {
		t.Errorf("defaults: %+v", s)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"store":           {func(c *Config) { c.Open = nil }, "no store"},
		"profile":         {func(c *Config) { c.Profiles = nil }, "no profile"},
		"profile twice":   {func(c *Config) { c.Profiles = append(allProfiles(), c.Profiles[1]) }, `profiles[3]: has the name "` + least.Profiles[1].Name() + `", as [1] has`},
		"name of profile": {func(c *Config) { c.Profiles = []Profile{named{c.Profiles[0], "two words"}} }, "profiles[0]: has a name that must consist of printable characters of ASCII without spaces"},
		"no name":         {func(c *Config) { c.Profiles = []Profile{named{c.Profiles[0], ""}} }, "profiles[0]: has a name that must not be empty"},
		"many profiles": {func(c *Config) {
			p := c.Profiles[0]
			c.Profiles = nil
			for i := range 9 {
				c.Profiles = append(c.Profiles, named{p, fmt.Sprint(i)})
			}
		}, "profiles: must not have more than 8 elements"},
		"registration":      {func(c *Config) { c.RegistrationLifetime = -1 }, `registration_lifetime: must be from 1s to 24h; write it as a text such as "30s", a plain number counts nanoseconds`},
		"handshake":         {func(c *Config) { c.HandshakeLifetime = -1 }, `handshake_lifetime: must be from 1s to 1h; write it as a text such as "30s", a plain number counts nanoseconds`},
		"attempts":          {func(c *Config) { c.MaxAttempts = -1 }, "max_attempts: must be from 1 to 100"},
		"endless attempts":  {func(c *Config) { c.MaxAttempts = 101 }, "max_attempts: must be from 1 to 100"},
		"activations":       {func(c *Config) { c.MaxActivations = 1001 }, "max_activations: must be from 1 to 1000"},
		"exchanges":         {func(c *Config) { c.MaxExchanges = -1 }, "max_exchanges: must be from 0 to 100000"},
		"many exchanges":    {func(c *Config) { c.MaxExchanges = 100_001 }, "max_exchanges: must be from 0 to 100000"},
		"password":          {func(c *Config) { c.Password.Length = 3 }, "password: length is 3, need 4 to 64"},
		"long registration": {func(c *Config) { c.RegistrationLifetime = 24*time.Hour + 1 }, `registration_lifetime: must be from 1s to 24h; write it as a text such as "30s", a plain number counts nanoseconds`},
		"short handshake":   {func(c *Config) { c.HandshakeLifetime = time.Second - 1 }, `handshake_lifetime: must be from 1s to 1h; write it as a text such as "30s", a plain number counts nanoseconds`},
		"least": {func(c *Config) {
			c.RegistrationLifetime, c.HandshakeLifetime, c.MaxAttempts, c.MaxActivations, c.MaxExchanges = time.Second, time.Second, 1, 1, 1
		}, ""},
		"greatest": {func(c *Config) {
			c.RegistrationLifetime, c.HandshakeLifetime, c.MaxAttempts, c.MaxActivations, c.MaxExchanges = 24*time.Hour, time.Hour, 100, 1000, 100_000
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := least
			c.change(&config)
			if _, err := New(config); c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
