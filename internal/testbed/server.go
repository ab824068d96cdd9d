//go:build linux

package testbed

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/relay"
)

// The test user.
const (
	UserID         = "jane.doe"
	Domain         = "mydomain.com"
	StaticPassword = "a static password"
)

const (
	// MaxWorkers is the greatest number of workers of a load.
	MaxWorkers = 64
	maxDevices = 512
)

// Server is a simulated authentication server behind TLS.
type Server struct {
	*sandbox.Server
	URL string

	client *http.Client
	stop   func()

	mu          sync.Mutex
	intercept   func(w http.ResponseWriter, r *http.Request) bool
	connections map[net.Conn]struct{} // that are open
}

// Intercept has f handle every command. The simulated server handles those for which f
// returns false. Nil ends the interception.
func (o *Server) Intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.intercept = f
}

// ServeHTTP implements http.Handler.
func (o *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	f := o.intercept
	o.mu.Unlock()
	if f != nil && f(w, r) {
		return
	}
	o.Server.ServeHTTP(w, r)
}

// ReadCommand returns the body of a command and leaves it to be read again.
func ReadCommand(r *http.Request) string {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return string(body)
}

// note keeps the list of open connections.
func (o *Server) note(c net.Conn, state http.ConnState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch state {
	case http.StateNew:
		o.connections[c] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(o.connections, c)
	case http.StateActive, http.StateIdle:
	}
}

// Stop makes the server unreachable.
func (o *Server) Stop() { o.stop() }

// Application returns the bank's application server in front of this server.
func (o *Server) Application() *sandbox.ApplicationServer {
	return &sandbox.ApplicationServer{URL: o.URL, Client: o.client}
}

// DropConnections has the kernel drop whatever arrives on the open connections of the
// server, and returns their number. New connections work.
func (o *Server) DropConnections(t *testing.T) int {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.connections {
		relay.Drop(t, c.(*tls.Conn).NetConn().(*net.TCPConn))
	}
	return len(o.connections)
}

// HoldLogins intercepts every login of a user until release is called, or the gateway gives
// up. The functions now and most return how many logins wait, and the greatest number that
// ever did.
func (o *Server) HoldLogins(user string) (now, most func() int64, release func()) {
	var waiting, highest atomic.Int64
	released, end := context.WithCancel(context.Background())
	o.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(ReadCommand(r), ">"+user+"<") {
			return false
		}
		n := waiting.Add(1)
		defer waiting.Add(-1)
		for old := highest.Load(); n > old && !highest.CompareAndSwap(old, n); old = highest.Load() {
		}
		select {
		case <-r.Context().Done():
		case <-released.Done():
		}
		return true
	})
	return waiting.Load, highest.Load, end
}

// Certificates makes certificates of this machine, for servers of both kinds.
func Certificates(t testing.TB) sandbox.Certificates {
	t.Helper()
	c, err := sandbox.NewCertificates(t.TempDir(), "localhost", "127.0.0.1")
	require.NoError(t, err)
	return c
}

// StartServer starts an authentication server with the test user and the users of loads.
func StartServer(t testing.TB, certs sandbox.Certificates) *Server {
	t.Helper()
	users := append([]sandbox.User{
		{Name: UserID, Domain: Domain, StaticPassword: StaticPassword, Licenses: 10, StandardLicenses: 10},
	}, loadUsers()...)
	return Serve(t, certs, sandbox.New(sandbox.Options{Users: users}))
}

// StartReplica starts an authentication server that shares users and devices with o and has
// pending requests and registrations of its own.
func StartReplica(t *testing.T, certs sandbox.Certificates, o *Server) *Server {
	t.Helper()
	return Serve(t, certs, o.Replica())
}

// Serve starts a simulated authentication server behind TLS.
func Serve(t testing.TB, certs sandbox.Certificates, s *sandbox.Server) *Server {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certs.Certificate, certs.Key)
	require.NoError(t, err)
	o := &Server{Server: s, client: NewClient(t, certs.Authority, ""), connections: make(map[net.Conn]struct{})}
	server := httptest.NewUnstartedServer(o)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = o.note
	server.StartTLS()
	o.stop = sync.OnceFunc(func() {
		server.CloseClientConnections()
		server.Close()
	})
	t.Cleanup(o.stop)
	o.URL = server.URL
	return o
}

// loadUsers returns the users of loads. They are many because wrong passwords lock a user,
// and because the more devices a user has, the likelier is the one-time password of one also
// that of another.
func loadUsers() []sandbox.User {
	var users []sandbox.User
	add := func(name string) {
		users = append(users, sandbox.User{Name: name, Domain: Domain, StaticPassword: StaticPassword, Licenses: 1000})
	}
	for number := range MaxWorkers {
		add(ActivationUser(number))
	}
	for number := range maxDevices {
		add(deviceUser(number))
	}
	return users
}

func deviceUser(number int) string { return fmt.Sprintf("load-device-%d", number) }

// ActivationUser returns one of MaxWorkers users, each of whom can activate many devices.
func ActivationUser(number int) string { return fmt.Sprintf("load-activation-%d", number) }
