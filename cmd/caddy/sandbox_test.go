package main

import (
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The sandbox comes up with nothing else installed, prints what to try, and
// what it prints works: the phone is activated, a wrong password is refused, and
// three refusals burn the registration.
func TestSandbox(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, port, err := net.SplitHostPort(freeAddress(t))
	require.NoError(t, err)
	env := environment(t.TempDir())
	out := new(logs)
	sandbox := exec.CommandContext(t.Context(), caddyBinary, "dsapp", "sandbox", "--dir", dir, "--listen", "localhost:"+port)
	sandbox.Env = env
	sandbox.Stdout, sandbox.Stderr = out, out
	sandbox.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, sandbox.Start())
	exited := make(chan error, 1)
	go func() { exited <- sandbox.Wait() }()
	poll(t, "the sandbox to run", func() bool {
		select {
		case err := <-exited:
			require.NoError(t, err, out.String())
		default:
		}
		return strings.Contains(out.String(), "The sandbox runs")
	})

	// The commands as printed.
	text := out.String()
	printed := regexp.MustCompile(`(?m)^ {2}\S.* (dsapp phone .*)$`).FindAllStringSubmatch(text, -1)
	require.NotEmpty(t, printed, text)
	phone := func(arguments ...string) (string, int) {
		return command(t, env, append(strings.Fields(printed[0][1]), arguments...)...)
	}

	activated, code := phone()
	require.Zero(t, code, activated)
	assert.Regexp(t, `Activated: [A-Z]{3}[0-9]{7}-[0-9]+\n$`, activated)
	for _, step := range []string{
		"DSAPPSRPRegister", "DSAPPSRPGenerateEphemeralKey", "DSAPPSRPGenerateActivationData", "MdlAddDevice", "MdlActivate",
		"sent", "received", "verified",
	} {
		assert.Contains(t, activated, step)
	}
	activated, code = phone("--v1")
	assert.Zero(t, code, activated)

	wrong, code := phone("--activation-password", "wrong-password")
	assert.NotZero(t, code, wrong)
	assert.Contains(t, wrong, "STAT_INVCREDENTIALS")

	// curl plays the bank's site as printed.
	curl := regexp.MustCompile(`(?s)curl (.*?DSAPPSRPRegister)`).FindString(text)
	require.NotEmpty(t, curl, text)
	shell := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(curl, "curl ", "curl -sS ", 1))
	answer, err := shell.CombinedOutput()
	require.NoError(t, err, string(answer))
	var decoded struct{ Result registration }
	require.NoError(t, json.Unmarshal(answer, &decoded), string(answer))
	registered := decoded.Result

	for range 3 {
		wrong, code = phone("--registration-identifier", registered.Identifier, "--activation-password", "wrong-password")
		assert.NotZero(t, code, wrong)
		assert.Contains(t, wrong, "STAT_INVCREDENTIALS")
	}
	burned, code := phone("--registration-identifier", registered.Identifier, "--activation-password", registered.Password)
	assert.NotZero(t, code, burned)
	assert.Contains(t, burned, "STAT_INVCREDENTIALS")

	require.NoError(t, sandbox.Process.Signal(syscall.SIGTERM))
	assert.NoError(t, <-exited, out.String())
	assert.FileExists(t, filepath.Join(dir, "dsapp.db"))
}
