//go:build linux

package testbed

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Proxy is a process that passes requests on to an authentication server as they are. Like a
// gateway, it terminates TLS, and keeps its own connections to the server.
type Proxy struct {
	URL string // without a path
	Pid int
}

// StartPlainCaddy starts the binary without a gateway, with Caddy's reverse_proxy.
func StartPlainCaddy(t testing.TB, certs sandbox.Certificates, server string) Proxy {
	t.Helper()
	g := Configure(t, certs, server, nil)
	g.LogLevel("WARN")
	delete(g.Config["apps"].(Object), "dsapp")
	site := g.HTTPServer()
	delete(site, "logs")
	site["routes"] = []Object{{"handle": []Object{{
		"handler":   "reverse_proxy",
		"upstreams": []Object{{"dial": strings.TrimPrefix(server, "https://")}},
		"transport": Object{
			"protocol": "http", "versions": []string{"1.1"}, "keep_alive": Object{"max_idle_conns_per_host": 30},
			"tls": Object{"ca": Object{"provider": "file", "pem_files": []string{certs.Authority}}},
		},
	}}}}
	g.Start(t)
	return Proxy{g.URL, g.Pid()}
}

// StartNginx starts nginx, in one process. It reports false if the machine has none.
func StartNginx(t testing.TB, certs sandbox.Certificates, server string) (Proxy, bool) {
	t.Helper()
	return startProxy(t, certs, "nginx", func(dir, address string) (string, []string) {
		return fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr error;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	keepalive_requests 1000000000;
	ssl_protocols TLSv1.3;
	ssl_certificate %[2]s;
	ssl_certificate_key %[3]s;
	upstream server {
		server %[4]s;
		keepalive 30;
		keepalive_requests 1000000000;
	}
	server {
		listen %[5]s ssl http2;
		location / {
			proxy_pass https://server;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_ssl_protocols TLSv1.3;
			proxy_ssl_verify on;
			proxy_ssl_name localhost;
			proxy_ssl_trusted_certificate %[6]s;
		}
	}
}
`, dir, certs.Certificate, certs.Key, strings.TrimPrefix(server, "https://"), address, certs.Authority), []string{"-p", dir, "-c"}
	})
}

// StartHAProxy starts HAProxy. It reports false if the machine has none.
func StartHAProxy(t testing.TB, certs sandbox.Certificates, server string) (Proxy, bool) {
	t.Helper()
	return startProxy(t, certs, "haproxy", func(dir, address string) (string, []string) {
		pem := filepath.Join(dir, "haproxy.pem")
		joinPair(t, certs, pem)
		patience := fmt.Sprintf("%ds", int(poll.Patience.Seconds()))
		return fmt.Sprintf(`
defaults
	mode http
	timeout connect %[1]s
	timeout client %[1]s
	timeout server %[1]s
	http-reuse always
frontend site
	bind %[2]s ssl crt %[3]s alpn h2,http/1.1 ssl-min-ver TLSv1.3
	default_backend server
backend server
	server server %[4]s ssl verify required ca-file %[5]s verifyhost localhost
`, patience, address, pem, strings.TrimPrefix(server, "https://"), certs.Authority), []string{"-db", "-f"}
	})
}

// startProxy starts a program with a configuration and waits until it serves. The function
// configure returns the configuration and the arguments before the name of its file.
func startProxy(t testing.TB, certs sandbox.Certificates, name string, configure func(dir, address string) (string, []string)) (Proxy, bool) {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		return Proxy{}, false
	}
	dir, address := t.TempDir(), freeport.Address(t)
	config, arguments := configure(dir, address)
	path := filepath.Join(dir, name+".conf")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	logs := new(output.Buffer)
	cmd := StartProgram(t, name, logs, program, append(arguments, path)...)
	client := NewClient(t, certs.Authority, "")
	defer client.CloseIdleConnections()
	poll.Until(t, name+" to serve", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address, nil)
		require.NoError(t, err)
		resp, err := client.Do(r)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	})
	return Proxy{"https://" + address, cmd.Process.Pid}, true
}
