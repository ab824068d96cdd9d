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

	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// runSandbox runs a sandbox with its files in dir until the test ends. It returns when
// everything listens.
func runSandbox(t *testing.T, env []string, dir string, arguments ...string) (process *exec.Cmd, out *output.Buffer, exited <-chan error) {
	t.Helper()
	out = new(output.Buffer)
	process = testbed.Program(env, out, append([]string{"dsapp", "sandbox", "--dir", dir}, arguments...)...)
	require.NoError(t, process.Start())
	ended := make(chan error, 1)
	go func() {
		ended <- process.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = process.Process.Kill()
		for range ended { // its files are in use until then
		}
	})
	poll.Until(t, "the sandbox to run", func() bool {
		select {
		case err := <-ended:
			require.NoError(t, err, out.String())
		default:
		}
		// This is the last line that it prints.
		return strings.Contains(out.String(), "/pushes\n")
	})
	return process, out, ended
}

// The sandbox needs nothing else installed and prints commands to try, which work: the phone is
// activated, a wrong password is refused, three refusals burn the registration, and the phone
// answers the requests of the bank's application server.
func TestSandbox(t *testing.T) {
	t.Parallel()
	dir, env := t.TempDir(), testbed.Environment(t.TempDir())
	_, port, err := net.SplitHostPort(freeport.Address(t))
	require.NoError(t, err)
	_, serverPort, err := net.SplitHostPort(freeport.Address(t))
	require.NoError(t, err)
	sandbox, out, exited := runSandbox(t, env, dir, "--listen", "localhost:"+port, "--listen-server", "localhost:"+serverPort)

	// These are the commands as printed.
	text := out.String()
	assert.Regexp(t, `users\.\n\n {2}reference +https://localhost:`+port+`/\n`, text)
	printed := regexp.MustCompile(`(?m)^ {2}\S.* (dsapp phone .*)$`).FindAllStringSubmatch(text, -1)
	require.NotEmpty(t, printed, text)
	phone := func(arguments ...string) (string, int) {
		return testbed.Run(t, env, append(strings.Fields(printed[0][1]), arguments...)...)
	}

	activated, code := phone()
	require.Zero(t, code, activated)
	assert.Regexp(t, `(?m)^Activated: [A-Z]{3}[0-9]{7}-[0-9]+$`, activated)
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

	answersRequests(t, env, text)

	// curl is the bank's site, as printed.
	curl := regexp.MustCompile(`(?s)curl (.*?DSAPPSRPRegister)`).FindString(text)
	require.NotEmpty(t, curl, text)
	shell := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(curl, "curl ", "curl -sS ", 1))
	answer, err := shell.CombinedOutput()
	require.NoError(t, err, string(answer))
	var decoded struct{ Result testbed.Registration }
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

// The script that docs/sandbox.md shows runs as it is: it provokes what a bank's back end has to
// cope with, and all comes as expected.
func TestSandboxScript(t *testing.T) {
	t.Parallel()
	binary := testbed.Program(nil, nil).Path
	script := exec.CommandContext(t.Context(), "bash", "../../docs/sandbox.sh")
	script.Env = append(testbed.Environment(t.TempDir()), "CADDY="+binary)
	printed, err := script.CombinedOutput()
	require.NoError(t, err, string(printed))
	assert.True(t, strings.HasSuffix(string(printed), "\nAll as expected.\n"), string(printed))
	for _, line := range []string{
		"503 STAT_COMMS", "502 STAT_COMMS", "504 STAT_COMMS", "200 STAT_LOCKED", "200 STAT_NOT_FOUND: getPreparedSignatureRequest",
		"200 STAT_NOSUPPORT: cancelAuthSignatureRequest", "200 STAT_SUCCESS: authSignature",
	} {
		assert.Contains(t, string(printed), "\n"+line)
	}
}

// answersRequests runs the printed commands with which the application server asks and the
// phone answers.
func answersRequests(t *testing.T, env []string, text string) {
	t.Helper()
	printed := func(what string) []string {
		line := regexp.MustCompile(`(?m)^ {2}\S.* (dsapp ` + what + `.*)$`).FindStringSubmatch(text)
		require.NotNil(t, line, "%s is not printed in %s", what, text)
		return strings.Fields(line[1])
	}
	for _, c := range []struct {
		ask, answer string
		approved    bool
	}{
		{"sandbox request-signature", "phone sign", true},
		{"sandbox request-login", "phone login", true},
		{"sandbox request-signature", "phone cancel", false},
	} {
		out := new(output.Buffer)
		asking := testbed.Program(env, out, printed(c.ask)...)
		require.NoError(t, asking.Start())
		t.Cleanup(func() { _ = asking.Process.Kill() })
		exited := make(chan error, 1)
		go func() { exited <- asking.Wait() }()

		// The push may not have arrived yet.
		poll.Until(t, c.answer, func() bool {
			_, code := testbed.Run(t, env, printed(c.answer)...)
			return code == 0
		})
		err := <-exited
		if c.approved {
			require.NoError(t, err, out.String())
		} else {
			require.Error(t, err, "a rejection is no success: %s", out)
		}
	}
	authenticated, code := testbed.Run(t, env, printed("phone authenticate")...)
	assert.Zero(t, code, authenticated)
}
