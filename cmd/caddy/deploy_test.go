package main

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

const deployFolder = "../../deploy"

// systemd finds no mistake in the unit, and rates what it can still do below 2.0 of 10.
func TestUnit(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	require.NoError(t, err, "this test needs systemd-analyze: run make test-tools")
	name := filepath.Join(deployFolder, "systemd", "dsapp-gateway.service")
	unit, err := os.ReadFile(name)
	require.NoError(t, err)
	// verify looks for the program.
	here := filepath.Join(t.TempDir(), filepath.Base(name))
	require.NoError(t, os.WriteFile(here, []byte(strings.ReplaceAll(string(unit), "/usr/local/bin/caddy", "/bin/true")), 0o600))
	out, err := exec.CommandContext(t.Context(), analyze, "verify", here).CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Empty(t, string(out))
	out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=20", name).CombinedOutput()
	assert.NoError(t, err, string(out))
}

// systemd makes the user and the modes of the files from what is in deploy/systemd.
func TestUserAndFilesOfUnit(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, dir := range []string{"etc/dsapp", "etc/sysusers.d", "etc/tmpfiles.d"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for name, dir := range map[string]string{"dsapp-gateway.sysusers.conf": "etc/sysusers.d", "dsapp-gateway.tmpfiles.conf": "etc/tmpfiles.d"} {
		text, err := os.ReadFile(filepath.Join(deployFolder, "systemd", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(root, dir, "dsapp-gateway.conf"), text, 0o600))
	}
	key := filepath.Join(root, "etc/dsapp/sealing.key")
	require.NoError(t, os.WriteFile(key, nil, 0o644))
	for _, arguments := range [][]string{{"systemd-sysusers", "--root=" + root}, {"systemd-tmpfiles", "--create", "--root=" + root}} {
		out, err := exec.CommandContext(t.Context(), arguments[0], arguments[1:]...).CombinedOutput()
		require.NoError(t, err, "%s: %s", arguments, out)
	}
	users, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	require.NoError(t, err)
	assert.Contains(t, string(users), "dsapp:")
	info, err := os.Stat(key)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o640), info.Mode())
}

// The gateway accepts the configuration for Kubernetes, and Prometheus that of the compose file.
func TestDeployedConfigurations(t *testing.T) {
	t.Parallel()
	secrets := exampleFiles(t)
	for name, of := range map[string]string{"redis.password": "sealing.key", "redis-ca.pem": "oas-ca.pem"} {
		text, err := os.ReadFile(filepath.Join(secrets, of))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(secrets, name), text, 0o600))
	}
	gateway := newExample(t, filepath.Join("deploy", "kubernetes", "Caddyfile"), secrets, "https://oas.invalid:8888/")
	out, code := testbed.Run(t, gateway.env, "validate", "--config", gateway.path)
	require.Zero(t, code, out)

	dir := t.TempDir()
	for _, name := range []string{"compose/prometheus.yaml", "prometheus/rules.yaml"} {
		text, err := os.ReadFile(filepath.Join(deployFolder, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(name)), text, 0o600))
	}
	checked, err := exec.CommandContext(t.Context(), "promtool", "check", "config", filepath.Join(dir, "prometheus.yaml")).CombinedOutput()
	require.NoError(t, err, string(checked))
}

// process starts a program that is killed at the end of the test. It returns what the program
// prints.
func process(t *testing.T, name string, arguments ...string) (*exec.Cmd, *output.Buffer) {
	t.Helper()
	path, err := exec.LookPath(name)
	require.NoError(t, err, "this test needs %s: run make test-tools", name)
	log := new(output.Buffer)
	return testbed.StartProgram(t, name, log, path, arguments...), log
}

// The files of deploy/compose and deploy/redis work together, with their programs on this machine
// instead of containers: phones activate through HAProxy and either gateway, which sees their
// addresses, with the rights of the access control lists, also after the loss of a Redis server.
func TestDeployedTogether(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	secrets := exampleFiles(t)
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), filepath.Join(deployFolder, "redis", "passwords.sh"), dir).CombinedOutput()
	require.NoError(t, err, string(out))
	// edited returns the path of a copy of a file with other texts.
	edited := func(name string, replacements ...string) string {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), filepath.Base(name))
		require.NoError(t, os.WriteFile(path, []byte(strings.NewReplacer(replacements...).Replace(string(text))), 0o600))
		return path
	}
	port := func(address string) string {
		_, port, err := net.SplitHostPort(address)
		require.NoError(t, err)
		return port
	}

	// Redis: a master and a replica, and three Sentinels.
	master := freeport.Address(t)
	redis := func(address string, arguments ...string) (*exec.Cmd, *output.Buffer) {
		data := t.TempDir()
		return process(t, "redis-server", append([]string{
			edited(filepath.Join(dir, "redis.conf"), "dir /data", "dir "+data, "/data/users.acl", filepath.Join(dir, "users.acl")),
			"--bind", "127.0.0.1", "--port", port(address), "--repl-diskless-sync-delay", "0",
		}, arguments...)...)
	}
	first, log := redis(master)
	replica := freeport.Address(t)
	redis(replica, "--replicaof", "127.0.0.1 "+port(master))
	// A Sentinel looks for replicas when it starts, and every ten seconds after that.
	poll.Until(t, "the replica", func() bool { return strings.Contains(log.String(), "Synchronization with replica") })
	var sentinels []string
	var sentinelLogs []*output.Buffer
	for range 3 {
		address := freeport.Address(t)
		sentinels = append(sentinels, address)
		_, log := process(t, "redis-server", edited(filepath.Join(dir, "sentinel.conf"),
			"port 26379", "port "+port(address)+"\nbind 127.0.0.1", "/data/sentinel-users.acl", filepath.Join(dir, "sentinel-users.acl"),
			"dir /data", "dir "+t.TempDir(), "redis-1 6379", "127.0.0.1 "+port(master), "5000", "500", "60000", "2000"), "--sentinel")
		sentinelLogs = append(sentinelLogs, log)
	}

	// Two gateways, and HAProxy in front of them.
	authority, err := os.ReadFile(certs.Authority)
	require.NoError(t, err)
	sandbox := filepath.Join(t.TempDir(), "sandbox")
	require.NoError(t, os.MkdirAll(filepath.Join(sandbox, "certificates"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(sandbox, "certificates", "ca.pem"), authority, 0o600))
	password, err := os.ReadFile(filepath.Join(dir, "dsapp.password"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(secrets, "redis.password"), password, 0o600))
	var nodes []example
	for range 2 {
		nodes = append(nodes, newExample(t, filepath.Join("deploy", "compose", "Caddyfile"), secrets, "",
			"https://sandbox:18888/", server.URL, "/sandbox/certificates", filepath.Join(sandbox, "certificates"),
			"sentinel-1:26379", sentinels[0], "sentinel-2:26379", sentinels[1], "sentinel-3:26379", sentinels[2],
			":9180", ":"+port(freeport.Address(t))))
	}
	site := freeport.Address(t)
	balancer := edited(filepath.Join(deployFolder, "compose", "haproxy.cfg"),
		"bind :11080", "bind "+site, "gateway-1:11080", strings.TrimPrefix(nodes[0].URL, "https://"),
		"gateway-2:11080", strings.TrimPrefix(nodes[1].URL, "https://"))
	for _, node := range nodes {
		node.start(t)
	}
	process(t, "haproxy", "-db", "-f", balancer)
	phone := &testbed.Gateway{URL: "https://" + site, Client: nodes[0].Client, Certificates: testbed.Certificates(t), Logs: new(output.Buffer)}
	works := func(addresses ...string) {
		t.Helper()
		poll.Until(t, "both gateways to be ready", func() bool {
			for _, node := range nodes {
				out, code := testbed.Run(t, node.env, "dsapp", "health", "--address", node.Admin)
				if code != 0 || !strings.Contains(out, "ready") || strings.Contains(out, "failing") {
					return false
				}
			}
			status, _, err := phone.Try(t.Context(), "/health", "", "")
			return err == nil && status == 405
		})
		for _, address := range addresses {
			phone.From(t, address).ActivatedDevice(t)
			poll.Until(t, "the address of the phone in a log", func() bool {
				return strings.Contains(nodes[0].Logs.String()+nodes[1].Logs.String(), `"client_ip":"`+address+`"`)
			})
		}
	}
	works("127.0.0.71", "127.0.0.72")
	found, _ := testbed.Run(t, nodes[0].env, "dsapp", "check", "--config", nodes[0].path)
	assert.NotContains(t, found, "may not")

	// said waits until each Sentinel has said something a number of times.
	said := func(what string, count int) {
		poll.Until(t, what+" of each Sentinel", func() bool {
			return !slices.ContainsFunc(sentinelLogs, func(log *output.Buffer) bool { return strings.Count(log.String(), what) < count })
		})
	}
	said("+slave slave", 1)
	said("+sentinel sentinel", len(sentinels)-1)
	require.NoError(t, first.Process.Kill())
	said("+switch-master", 1)
	// HAProxy takes the gateways in turns, so that both have written to the other server.
	poll.Until(t, "both gateways to write to the other Redis server", func() bool {
		for range 2 * len(nodes) {
			status, _, err := phone.Try(t.Context(), testbed.AddDevicePath, testbed.FrontEndKey, `{"registrationIdentifier":"unknown1","deviceCode":"1"}`)
			if err != nil || status != http.StatusOK {
				return false
			}
		}
		return true
	})
	works("127.0.0.73", "127.0.0.74")
}
