package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// checkMachine checks the settings of the kernel.
func (f *findings) checkMachine() {
	if reloadResetsConnections(tcpMigrateReqFile) {
		f.add("system", "net.ipv4.tcp_migrate_req", "is 0, so that a reload can reset connections that wait to be accepted: set it to 1, "+
			"for example with deploy/sysctl.d/60-dsapp-gateway.conf")
	}
}

// listening is the part of a configuration that says where Caddy listens.
type listening struct {
	Admin struct {
		Listen string `json:"listen"`
	} `json:"admin"`
	Apps struct {
		HTTP struct {
			Servers map[string]struct {
				Listen []string `json:"listen"`
			} `json:"servers"`
		} `json:"http"`
	} `json:"apps"`
}

// addresses returns the addresses of the HTTP servers, each once, in the form host:port.
func (l *listening) addresses() []string {
	known := make(map[string]struct{})
	for _, server := range l.Apps.HTTP.Servers {
		for _, text := range server.Listen {
			resolved := caddy.NewReplacer().ReplaceKnown(text, "")
			address, err := caddy.ParseNetworkAddress(resolved)
			if err != nil || address.IsUnixNetwork() || address.IsFdNetwork() || address.Network != "tcp" {
				continue
			}
			for i := range min(address.PortRangeSize(), 100) {
				known[address.JoinHostPort(i)] = struct{}{}
			}
		}
	}
	return sortedNames(known)
}

// checkListeners checks that the addresses of the HTTP servers are free, or in use by the
// Caddy that the admin endpoint of the configuration belongs to.
func (f *findings) checkListeners(ctx context.Context, config []byte) {
	var wanted listening
	if json.Unmarshal(config, &wanted) != nil {
		return // provisioning says what is wrong
	}
	own := make(map[string]bool)
	for _, address := range runningListeners(wanted.Admin.Listen) {
		own[address] = true
	}
	for _, address := range wanted.addresses() {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		switch {
		case err == nil:
			_ = l.Close()
		case errors.Is(err, syscall.EADDRINUSE) && own[address]:
		case errors.Is(err, syscall.EADDRINUSE):
			f.add("listen", address, "another process uses the port: end that process (`ss -ltnp` shows it), or change `listen`")
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			f.add("listen", address, "this machine does not have the address: correct `listen`, or configure the address")
		case errors.Is(err, os.ErrPermission):
			f.note("listen", address, "this user may not use the port, so it was not checked: run the check as the user of the gateway, with its capabilities")
		default:
			f.add("listen", address, "%v", err)
		}
	}
}

// runningListeners returns the addresses of the HTTP servers of the Caddy at an admin
// endpoint, nil if there is none.
func runningListeners(admin string) []string {
	if admin == "" {
		admin = caddy.DefaultAdminListen
	}
	response, err := caddycmd.AdminAPIRequest(admin, http.MethodGet, "/config/", nil, nil)
	if err != nil {
		return nil
	}
	defer func() { _ = response.Body.Close() }()
	var running listening
	if json.NewDecoder(response.Body).Decode(&running) != nil {
		return nil
	}
	return running.addresses()
}
