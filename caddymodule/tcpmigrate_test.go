package caddymodule

import (
	"os"
	"path/filepath"
	"testing"
)

// The warning is for kernels that have the setting and have it switched off.
func TestReloadResetsConnections(t *testing.T) {
	t.Parallel()
	setting := filepath.Join(t.TempDir(), "tcp_migrate_req")
	if reloadResetsConnections(setting) {
		t.Error("without the setting")
	}
	for value, want := range map[string]bool{"1\n": false, "0\n": true} {
		if err := os.WriteFile(setting, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		if reloadResetsConnections(setting) != want {
			t.Errorf("setting %q: want %t", value, want)
		}
	}
}
