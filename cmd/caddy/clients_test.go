package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// Clients that send the API key only when they are asked for it are served, however often they
// begin without: curl, and a Java client, whose numbers have a sign byte or lack leading zeros.
func TestClientsThatAwaitTheChallenge(t *testing.T) {
	t.Parallel()
	const calls = 12
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["limits"].(testbed.Object)["failed_keys_per_minute"] = calls / 2
	})
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		var complaints strings.Builder
		cmd.Stderr = &complaints
		out, err := cmd.Output()
		require.NoError(t, err, complaints.String())
		return string(out)
	}
	urls := strings.Split(strings.Repeat(" "+g.URL+testbed.ServerTimePath, calls), " ")[1:]
	args := append([]string{
		"--silent", "--show-error", "--anyauth", "--user", testbed.FrontEndKey + ":", "--cacert", g.Certificates.Authority,
		"--header", "Content-Type: application/json", "--data", "{}", "--write-out", "\n%{http_code}\n",
	}, urls...)
	out := run("curl", args...)
	assert.Equal(t, calls, strings.Count(out, "\n200\n"), out)
	assert.Equal(t, calls, strings.Count(out, answerSuccess), out)

	if _, err := exec.LookPath("javac"); err != nil {
		t.Skip("no JDK")
	}
	registered := g.Register(t)
	run("java", "testdata/java-client/Activate.java", g.URL, g.Certificates.Authority, testbed.FrontEndKey, registered.Identifier, registered.Password, "12")
}
