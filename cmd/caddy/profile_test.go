package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The binary finds the profile in exchanges that an unmodified third-party library has just made
// with itself, and agrees with them.
func TestForeignExchangeIsSolved(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ environment, want string }{
		"hap":   {"SRP_HAP=1", `"rfc5054-2048-sha256"`},
		"plain": {"SRP_HAP=0", "m1 = A B S"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "node", "capture.mjs")
			cmd.Dir = filepath.Join("testdata", "srp-client")
			cmd.Env = append(os.Environ(), test.environment)
			capture, err := cmd.Output()
			require.NoError(t, err)
			file := filepath.Join(t.TempDir(), "capture.json")
			require.NoError(t, os.WriteFile(file, capture, 0o600))
			out, code := operate(t, "profile", "solve", file)
			assert.Equal(t, 0, code, out)
			assert.Contains(t, out, test.want)
			assert.Contains(t, out, "Tested: ")
		})
	}
}
