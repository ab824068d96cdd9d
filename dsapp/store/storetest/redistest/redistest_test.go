package redistest

import (
	"bufio"
	"net"
	"strings"
	"testing"
)

// A started server answers, on its own port, and is gone after Stop.
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

// A frozen server can be stopped.
func TestStopFrozen(t *testing.T) {
	t.Parallel()
	s := Start(t)
	s.Freeze(t)
	s.Stop()
}

// A server that refuses its arguments is reported with what it printed.
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
