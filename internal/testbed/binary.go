//go:build linux

package testbed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/namespace"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
)

// executable is the file name of the binary, which Main builds.
var executable string

// binaryVariable names a binary that Main uses instead of building one.
const binaryVariable = "DSAPP_CADDY"

// Main builds the main package of the working directory, unless the environment variable
// DSAPP_CADDY names a binary, runs the tests and returns their exit code. They run in
// namespaces of their own if the machine permits that: with a network that is set up as
// docs/operation.md asks for, with temporary files in memory, and where they may mount file
// systems.
func Main(m *testing.M) int {
	if !namespace.Inside() {
		code, err := runInOwnNamespaces()
		if err == nil {
			return code
		}
		reloadsReset = err
	} else if err := setUpNetwork(); err != nil {
		fmt.Fprintln(os.Stderr, "setting up the network of the tests:", err)
		return 1
	}

	dir, err := os.MkdirTemp("", "dsapp-gateway-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if namespace.Inside() {
		remove, err := inMemory(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mounting a file system:", err)
			return 1
		}
		defer remove()
	}

	executable = filepath.Join(dir, "caddy")
	if given := os.Getenv(binaryVariable); given != "" {
		executable = given
	} else {
		build := exec.Command("go", "build", "-o", executable, ".")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "building the binary:", err)
			return 1
		}
	}
	code := m.Run()
	if reportViolations() {
		code = max(code, 1)
	}
	return code
}

// Environment returns the environment of this process without the variables that could
// change the outcome of a test, with another home directory.
func Environment(home string) []string {
	env := []string{"HOME=" + home, "XDG_DATA_HOME=" + home, "XDG_CONFIG_HOME=" + home}
	for _, name := range []string{"PATH", "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GOPATH", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// Run runs the binary with arguments to its end. It returns what it printed and its exit
// code.
func Run(t *testing.T, env []string, arguments ...string) (string, int) {
	t.Helper()
	var out output.Buffer
	cmd := Program(env, &out, arguments...)
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// Program returns a command that runs the binary with arguments and prints to out. The
// kernel kills the process when this one ends.
func Program(env []string, out io.Writer, arguments ...string) *exec.Cmd {
	cmd := exec.Command(executable, arguments...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}
