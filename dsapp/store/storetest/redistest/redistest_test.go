package redistest

import (
	"bufio"
	"net"
	"strings"
	"testing"
)

// A started server answers on its own port, and does not listen after Stop.
func TestServer(t *testing.T) {
	t.Parallel()
	s, other := Start(t), Start(t)
	if s.Addr() == other.Addr() {
		t.Fatal("two servers on one port")
	}
	s.Command(t, "SET", "key", "a\r\nb")
	if got := s.Command(t, "GET", "key"); got != "a\r\nb" {
		t.Fatalf("read back as %q", got)
	}
	if got := other.Command(t, "EXISTS", "key"); got != "0" {
		t.Fatalf("the other server has the key: %s", got)
	}
	if got := s.Command(t, "KEYS", "*"); got != "key" {
		t.Fatalf("keys %q", got)
	}
	s.FlushAll(t)
	if got := s.Command(t, "DBSIZE"); got != "0" {
		t.Fatalf("%s keys after FlushAll", got)
	}
	s.Freeze(t)
	s.Thaw(t)
	if got := s.Command(t, "PING"); got != "PONG" {
		t.Fatalf("answer %q after Thaw", got)
	}
	for range 2 {
		s.Stop()
	}
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		conn.Close()
		t.Fatal("still listening after Stop")
	}
}

// A restarted server has the same address, and the data that it wrote to disk.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, kept := range []string{"no", "yes"} {
		s := Start(t, "--appendonly", kept)
		s.Command(t, "SET", "key", "value")
		addr := s.Addr()
		s.Stop()
		s.Restart(t)
		if s.Addr() != addr {
			t.Errorf("address %s, was %s", s.Addr(), addr)
		}
		if got, want := s.Command(t, "EXISTS", "key"), map[string]string{"no": "0", "yes": "1"}[kept]; got != want {
			t.Errorf("files %s: %s keys, want %s", kept, got, want)
		}
		s.Stop()
		if s.running() {
			t.Error("still running after Stop")
		}
	}
}

// A frozen server can be stopped.
func TestStopFrozen(t *testing.T) {
	t.Parallel()
	s := Start(t)
	s.Freeze(t)
	s.Stop()
}

// The error of a server that does not start contains what it printed.
func TestStartFails(t *testing.T) {
	t.Parallel()
	_, log, err := start(binary, t.TempDir(), freePort(t), []string{"--no-such-option", "1"})
	if err == nil || !strings.Contains(log, "no-such-option") {
		t.Fatalf("error %v, output %q", err, log)
	}
}

func TestReadAnswer(t *testing.T) {
	t.Parallel()
	tests := []struct{ wire, want, err string }{
		{"+OK\r\n", "OK", ""},
		{":42\r\n", "42", ""},
		{"$3\r\nabc\r\n", "abc", ""},
		{"$-1\r\n", "", ""},
		{"*2\r\n$1\r\na\r\n:7\r\n", "a\n7", ""},
		{"*0\r\n", "", ""},
		{"-ERR no\r\n", "", "ERR no"},
		{"?\r\n", "", "unknown answer"},
		{"$3\r\na", "", "EOF"},
		{"", "", "EOF"},
	}
	for _, tt := range tests {
		got, err := readAnswer(bufio.NewReader(strings.NewReader(tt.wire)))
		if tt.err == "" && (err != nil || got != tt.want) {
			t.Errorf("%q: %q, error %v", tt.wire, got, err)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: error %v, want one with %q", tt.wire, err, tt.err)
		}
	}
}

// A cluster serves a key on the node that Master returns, and a migration moves a slot with its
// keys.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, 1)
	const key = "{a}key"
	slot := c.Slot(t, key)
	from := c.Master(slot)
	from.Command(t, "SET", key, "value")
	to := c.Masters[0]
	if to == from {
		to = c.Masters[1]
	}
	if _, err := to.command("GET", key); err == nil || !strings.Contains(err.Error(), "MOVED") {
		t.Fatalf("another master: error %v", err)
	}
	m := c.Migrate(t, slot, from, to)
	if got := from.Command(t, "GET", key); got != "value" {
		t.Fatalf("while the slot moves: %q", got)
	}
	m.Move(t)
	if _, err := from.command("GET", key); err == nil || !strings.Contains(err.Error(), "ASK") {
		t.Fatalf("after the key moved: error %v", err)
	}
	m.Finish(t)
	if got := to.Command(t, "GET", key); got != "value" {
		t.Fatalf("after the slot moved: %q", got)
	}
	if len(c.Addresses()) != 3 || len(c.Replicas) != 3 {
		t.Fatalf("masters %v, %d replicas", c.Addresses(), len(c.Replicas))
	}
}

// Sentinels agree on the master, and on another one after it was stopped.
func TestSentinel(t *testing.T) {
	t.Parallel()
	s := StartSentinel(t, 2)
	first := s.Master(t, nil)
	if first != s.Servers[0] {
		t.Fatalf("the first master is %s, want %s", first.Addr(), s.Servers[0].Addr())
	}
	first.Stop()
	next := s.Master(t, first)
	if next == first || !next.running() {
		t.Fatal("no other master")
	}
	next.Command(t, "SET", "key", "value")
}
