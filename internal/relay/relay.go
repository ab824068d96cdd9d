// Package relay stands in for the network between a client and a server, so that tests
// can break it.
package relay

import (
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
)

// Fate is what becomes of the bytes that a client sends.
type Fate int

// The fates of a connection.
const (
	// Forward takes them to the server.
	Forward Fate = iota
	// Hold keeps them back. The client notices nothing.
	Hold
	// Reset ends the connection with a reset.
	Reset
)

// Relay accepts connections and takes what comes on them to a server and back.
type Relay struct {
	listener net.Listener

	wg       sync.WaitGroup
	mu       sync.Mutex
	open     map[*connection]bool
	accepted int
	target   string
	next     Fate
}

type connection struct {
	client  net.Conn
	server  *net.TCPConn
	answers sync.WaitGroup // done when the server has closed its side

	fate Fate   // under the relay's mu
	held []byte // under the relay's mu
}

// Start starts a relay to an address. It ends with the test.
func Start(tb testing.TB, target string) *Relay {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return StartOn(tb, l, target)
}

// StartOn starts a relay that accepts the connections of a listener, which it closes. Of a
// listener that speaks TLS it takes to the server what was encrypted.
func StartOn(tb testing.TB, l net.Listener, target string) *Relay {
	tb.Helper()
	r := &Relay{listener: l, target: target, open: map[*connection]bool{}}
	r.wg.Go(r.serve)
	tb.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for c := range r.open {
			c.client.Close()
			c.server.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *Relay) serve() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		server, err := net.Dial("tcp", r.target)
		if err == nil {
			c := &connection{client: client, server: server.(*net.TCPConn), fate: r.next}
			r.open[c] = true
			r.accepted++
			c.answers.Go(func() {
				_, _ = io.Copy(c.client, c.server)
				c.client.Close()
			})
			r.wg.Go(func() { r.carry(c) })
		} else {
			client.Close()
		}
		r.mu.Unlock()
	}
}

// carry does with what the client sends what the connection's fate says.
func (r *Relay) carry(c *connection) {
	defer c.answers.Wait()
	buffer := make([]byte, 4096)
	for {
		n, err := c.client.Read(buffer)
		r.mu.Lock()
		switch {
		case c.fate == Hold:
			c.held = append(c.held, buffer[:n]...)
		case c.fate == Reset && n > 0:
			if tcp, ok := c.client.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			c.client.Close()
			err = net.ErrClosed
		case err == nil:
			_, err = c.server.Write(buffer[:n])
		}
		if err != nil && c.fate != Hold {
			c.server.Close()
			delete(r.open, c)
		}
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Addr is the address that clients connect to.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Retarget takes connections that are made from now on to another server.
func (r *Relay) Retarget(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// Set changes the fates of the open connections and of those that are made from now on.
func (r *Relay) Set(open, next Fate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = next
	for c := range r.open {
		c.fate = open
	}
}

// Open is how many connections there are.
func (r *Relay) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

// Accepted is how many connections there have been.
func (r *Relay) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Clients returns the clients' sides of the open connections.
func (r *Relay) Clients() []net.Conn {
	var clients []net.Conn
	for _, c := range r.connections() {
		clients = append(clients, c.client)
	}
	return clients
}

func (r *Relay) connections() []*connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.open))
}

// Deliver takes to the server what was held, when nobody waits for it any more, and
// returns when the server has carried it out.
func (r *Relay) Deliver(tb testing.TB) {
	tb.Helper()
	for _, c := range r.connections() {
		r.mu.Lock()
		held := c.held
		r.mu.Unlock()
		if len(held) == 0 {
			continue
		}
		if _, err := c.server.Write(held); err != nil {
			tb.Error(err)
		}
		// The server closes its side when it has carried out everything.
		if err := c.server.CloseWrite(); err != nil {
			tb.Error(err)
		}
		c.answers.Wait()
	}
}
