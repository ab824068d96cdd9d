//go:build linux

package testbed

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Balancer is a HAProxy in front of gateways. It terminates TLS and checks the gateways with
// HTTP health checks.
type Balancer struct {
	// Gateway has the URL of the balancer, so that loads can use it like a gateway.
	*Gateway

	socket string // of the runtime API
}

const (
	// checkInterval is the time between two health checks of a gateway. It also limits the
	// TLS handshake of a check, so a busy machine needs some of it.
	checkInterval = 2 * time.Second
	// failedChecks is how many failed checks in a row end the requests to a gateway.
	failedChecks = 2
	// DetectionTime is twice the time after which the balancer sends no more requests to a
	// gateway whose health check fails.
	DetectionTime = 2 * failedChecks * checkInterval
)

// StartBalancer starts a balancer. A gateway gets requests after one health check with status
// 200, and none after failedChecks with another one.
func StartBalancer(t *testing.T, gateways ...*Gateway) *Balancer {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	require.NoError(t, err, "this test needs HAProxy: run make test-tools")
	dir := t.TempDir()
	certs := gateways[0].Certificates
	pem := filepath.Join(dir, "haproxy.pem")
	joinPair(t, certs, pem)
	address := freeport.Address(t)
	b := &Balancer{
		Gateway: &Gateway{URL: "https://" + address, Logs: new(output.Buffer), Certificates: certs, Client: NewClient(t, certs.Authority, "")},
		// The path of a socket must be short.
		socket: filepath.Join(dir, "s"),
	}
	patience := fmt.Sprintf("%ds", int(poll.Patience.Seconds()))
	var config strings.Builder
	fmt.Fprintf(&config, `
global
	stats socket %s level user
defaults
	mode http
	timeout connect %s
	timeout client %s
	timeout server %s
	timeout check %s
frontend site
	bind %s ssl crt %s alpn h2,http/1.1
	default_backend nodes
backend nodes
	balance roundrobin
	option redispatch
	option httpchk GET %s
	http-check expect status 200
	default-server ssl verify none check inter %d fall %d rise 1
`, b.socket, patience, patience, patience, patience, address, pem, HealthPath, checkInterval.Milliseconds(), failedChecks)
	for i, g := range gateways {
		fmt.Fprintf(&config, "\tserver node%d %s\n", i, strings.TrimPrefix(g.URL, "https://"))
	}
	path := filepath.Join(dir, "haproxy.cfg")
	require.NoError(t, os.WriteFile(path, []byte(config.String()), 0o600))
	StartProgram(t, "haproxy", b.Logs, program, "-db", "-f", path)
	for i := range gateways {
		b.Await(t, i, "UP")
	}
	return b
}

// joinPair writes the certificate and its key into one file, as HAProxy reads them.
func joinPair(t testing.TB, certs sandbox.Certificates, file string) {
	t.Helper()
	var pair []byte
	for _, name := range []string{certs.Certificate, certs.Key} {
		pem, err := os.ReadFile(name)
		require.NoError(t, err)
		pair = append(pair, pem...)
	}
	require.NoError(t, os.WriteFile(file, pair, 0o600))
}

// StartProgram starts a program that runs until the end of the test.
func StartProgram(t testing.TB, name string, logs *output.Buffer, program string, arguments ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, arguments...)
	cmd.Stdout, cmd.Stderr = logs, logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, logs)
		}
	})
	return cmd
}

// Await waits until a gateway, by its index, has a state: UP or DOWN.
func (b *Balancer) Await(t *testing.T, gateway int, state string) {
	t.Helper()
	poll.Until(t, fmt.Sprintf("node%d to be %s at the balancer", gateway, state), func() bool {
		return b.state(gateway) == state
	})
}

// state returns the state of a gateway as the runtime API tells it.
func (b *Balancer) state(gateway int) string {
	c, err := net.Dial("unix", b.socket)
	if err != nil {
		return ""
	}
	defer c.Close()
	if _, err := io.WriteString(c, "show stat\n"); err != nil {
		return ""
	}
	table, err := io.ReadAll(c)
	if err != nil {
		return ""
	}
	var column int
	for line := range strings.Lines(string(table)) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		for i, name := range fields {
			if name == "status" && column == 0 {
				column = i
			}
		}
		if len(fields) > column && fields[0] == "nodes" && fields[1] == fmt.Sprintf("node%d", gateway) {
			return fields[column]
		}
	}
	return ""
}
