package operatorcmd

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

// check runs `caddy dsapp store check`.
func check(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := newStoreCommand()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(append([]string{"check"}, arguments...))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// newFile creates the file of a store in a new folder.
func newFile(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	s, err := embedded.Open(path, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// For a sound file, the command prints one line with its content. Otherwise it fails with the
// name of the file, the problem and what to do. It creates no file.
func TestCheck(t *testing.T) {
	t.Parallel()
	sound := newFile(t, "dsapp.db")
	if out, err := check(t, "--path", sound); err != nil ||
		out != sound+" is sound: 0 registrations, 0 claims, 0 records of unknown identifiers, 32768 bytes\n" {
		t.Errorf("%q, error %v", out, err)
	}
	damaged := newFile(t, "dsapp.db")
	if err := os.Truncate(damaged, 10_000); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "folder", "dsapp.db")
	for path, want := range map[string]string{
		damaged:             "move the file aside: what it holds lives ten minutes",
		missing:             "does not exist: name the file with --path, or the configuration with --config",
		filepath.Dir(sound): "is a directory",
		"{env.NO_SUCH}":     "path: a placeholder is not known or has no value",
	} {
		_, err := check(t, "--path", path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(path, "{") && !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: error %v", path, err)
		}
	}
	if _, err := os.Stat(filepath.Dir(missing)); err == nil {
		t.Error("a folder was made")
	}
}

// With --config, the command checks the file that a configuration names, or the default file.
func TestCheckWithConfiguration(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_DATA_HOME", home)
	path := newFile(t, "file.db")
	t.Setenv("STORE_OF_TEST", path)
	standard := filepath.Join(home, "caddy", "dsapp", "dsapp.db")
	for name, c := range map[string]struct {
		config string
		want   string
	}{
		"path":        {`{"apps": {"dsapp": {"store": {"backend": "embedded", "path": "` + path + `"}}}}`, path + " is sound"},
		"placeholder": {`{"apps": {"dsapp": {"store": {"backend": "embedded", "path": "{env.STORE_OF_TEST}"}}}}`, path + " is sound"},
		"default":     {`{"apps": {"dsapp": {}}}`, standard + " does not exist"},
		"redis":       {`{"apps": {"dsapp": {"store": {"backend": "redis"}}}}`, "has the store redis, which has no file to check"},
		"another app": {`{"apps": {"http": {}}}`, "has no app dsapp"},
		"no JSON":     {"localhost\n", "`caddy adapt` converts other formats to JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "caddy.json")
			if err := os.WriteFile(config, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := check(t, "--config", config)
			if err != nil {
				out = err.Error()
			}
			if !strings.Contains(out, c.want) || strings.HasSuffix(c.want, "is sound") != (err == nil) {
				t.Errorf("%s, want %q", out, c.want)
			}
		})
	}
	if _, err := check(t, "--config", filepath.Join(home, "nothing")); err == nil || !strings.Contains(err.Error(), "--config: ") {
		t.Errorf("error %v", err)
	}
	if _, err := check(t); err == nil || !strings.HasPrefix(err.Error(), standard) {
		t.Errorf("error %v", err)
	}
}
