// Package redistest runs real Redis servers, clusters and Sentinels for the tests of
// one package.
package redistest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

const (
	// binary is the server, which the package redis-server of Debian installs.
	binary = "redis-server"
	// startAttempts is how many ports are tried.
	startAttempts = 5
	// loopback is the address that all servers listen on.
	loopback = "127.0.0.1"
	// inUse is part of what a server prints if its port is taken.
	inUse = "Address already in use"
)

// Server is a running Redis server. It does not write to disk unless its arguments say so.
type Server struct {
	addr string
	cmd  *exec.Cmd
	args []string
	done chan struct{} // closed when the process has ended
	stop sync.Once
}

// Start starts a server on a free port of the loopback interface. args are added to its
// command line. The server is stopped when the test and its subtests are over. The test fails
// if the server is not installed.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return startFree(tb, func(port string) []string {
		return append(append(arguments(port), "--databases", "1"), args...)
	})
}

// StartTLS is Start for a server that also listens for TLS, at the address that it returns.
// The arguments are the paths of the server's certificate, of its key, and of the authorities
// of client certificates. The server requires a client certificate.
func StartTLS(tb testing.TB, certificate, key, authorities string) (s *Server, address string) {
	tb.Helper()
	s = startFree(tb, func(port string) []string {
		second := freePort(tb)
		address = net.JoinHostPort(loopback, second)
		return append(arguments(port),
			"--tls-port", second, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authorities)
	})
	return s, address
}

// arguments returns the command line of a server that does not write to disk. It turns off
// diskless replication: with it, a master reports a replica as online a second before the
// replica confirms writes.
func arguments(port string) []string {
	return []string{"--bind", loopback, "--port", port, "--save", "", "--appendonly", "no", "--repl-diskless-sync", "no"}
}

// startFree starts a server with the arguments for a free port. If another process takes the
// port first, it tries another one.
func startFree(tb testing.TB, arguments func(port string) []string) *Server {
	tb.Helper()
	path, err := exec.LookPath(binary)
	if err != nil {
		tb.Fatalf("this test needs a Redis server: install the program %s (%v)", binary, err)
	}
	var failure string
	for range startAttempts {
		port := freePort(tb)
		s, log, err := start(path, tb.TempDir(), port, arguments(port))
		if err == nil {
			tb.Cleanup(s.Stop)
			return s
		}
		failure = fmt.Sprintf("%v\n%s", err, log)
		if !strings.Contains(log, inUse) {
			break
		}
	}
	tb.Fatalf("%s does not start: %s", binary, failure)
	return nil
}

// start starts a server in a working folder and waits until it answers on port. On failure it
// also returns what the server printed.
func start(path, folder, port string, args []string) (*Server, string, error) {
	var log output.Buffer
	s := &Server{addr: net.JoinHostPort(loopback, port), args: args, done: make(chan struct{})}
	s.cmd = exec.Command(path, args...)
	s.cmd.Dir = folder
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	s.cmd.SysProcAttr = processAttributes()

	started := make(chan error)
	go func() {
		// The server is killed when the thread that started it ends (see
		// processAttributes), so the thread has to stay until the server has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
		}
		close(s.done)
	}()
	if err := <-started; err != nil {
		return nil, "", err
	}

	deadline := time.After(poll.Patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if answer, err := s.command("PING"); err == nil && answer == "PONG" {
			return s, "", nil
		}
		select {
		case <-tick.C:
		case <-s.done:
			return nil, log.String(), errors.New("the process ended")
		case <-deadline:
			s.Stop()
			return nil, log.String(), fmt.Errorf("no answer within %v", poll.Patience)
		}
	}
}

// Addr returns the server's host and port.
func (s *Server) Addr() string { return s.addr }

func (s *Server) port() string { return s.addr[strings.LastIndexByte(s.addr, ':')+1:] }

// running reports whether the process of the server exists.
func (s *Server) running() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// Stop kills the server. Calling Stop again does nothing.
func (s *Server) Stop() {
	s.stop.Do(func() {
		_ = s.cmd.Process.Kill()
		<-s.done
	})
}

// Restart stops the server and starts it again with the same address, arguments and files. It
// has lost its data unless the arguments make it write to disk. The test fails if another
// process has taken the address.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.Stop()
	again, log, err := start(s.cmd.Path, s.cmd.Dir, s.port(), s.args)
	if err != nil {
		tb.Fatalf("%s does not start again: %v\n%s", binary, err, log)
	}
	s.cmd, s.done, s.stop = again.cmd, again.done, sync.Once{}
}

// Freeze suspends the process of the server. Its connections stay open and it answers nothing
// until Thaw or Stop is called.
func (s *Server) Freeze(tb testing.TB) {
	tb.Helper()
	s.signal(tb, syscall.SIGSTOP)
}

// Thaw resumes the process of a frozen server.
func (s *Server) Thaw(tb testing.TB) {
	tb.Helper()
	s.signal(tb, syscall.SIGCONT)
}

func (s *Server) signal(tb testing.TB, signal os.Signal) {
	tb.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		tb.Fatalf("%v to %s: %v", signal, binary, err)
	}
}

// FlushAll removes every key.
func (s *Server) FlushAll(tb testing.TB) {
	tb.Helper()
	s.Command(tb, "FLUSHALL")
}

// Fill sets a memory limit and starts one client for each size, which writes values of this
// size. It returns when the server has refused a value of each client. The clients go on until
// stop is called or the test is over; stop also removes the limit. Do not use small values: a
// server exceeds its limit when it enlarges its table of keys.
func (s *Server) Fill(tb testing.TB, sizes ...int) (stop func()) {
	tb.Helper()
	s.Command(tb, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	s.Command(tb, "CONFIG", "SET", "maxmemory", "8mb")
	stopped := make(chan struct{})
	var clients, full sync.WaitGroup
	for _, size := range sizes {
		full.Add(1)
		once := sync.OnceFunc(full.Done)
		clients.Go(func() {
			defer once()
			value := strings.Repeat("x", size)
			for i := 0; ; i++ {
				select {
				case <-stopped:
					return
				default:
				}
				if _, err := s.command("SET", fmt.Sprintf("other:%d:%d", size, i), value); err != nil && strings.Contains(err.Error(), "OOM") {
					once()
				}
			}
		})
	}
	full.Wait()
	stop = sync.OnceFunc(func() {
		close(stopped)
		clients.Wait()
		if s.running() {
			s.Command(tb, "CONFIG", "SET", "maxmemory", "0")
		}
	})
	tb.Cleanup(stop)
	return stop
}

// Command sends a command on a new connection and returns the answer: a string as it is, an
// integer in decimal, an array with one line per element. The test fails on every error,
// including those that the server sends.
func (s *Server) Command(tb testing.TB, args ...string) string {
	tb.Helper()
	answer, err := s.command(args...)
	if err != nil {
		tb.Fatalf("redis command %s: %v", args[0], err)
	}
	return answer
}

func (s *Server) command(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), poll.Patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(poll.Patience)); err != nil {
		return "", err
	}
	var request bytes.Buffer
	fmt.Fprintf(&request, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := conn.Write(request.Bytes()); err != nil {
		return "", err
	}
	return readAnswer(bufio.NewReader(conn))
}

// readAnswer reads one value of version 2 of the Redis protocol.
func readAnswer(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	kind, rest := line[:1], line[1:]
	switch kind {
	case "+", ":":
		return rest, nil
	case "-":
		return "", errors.New(rest)
	case "$", "*":
	default:
		return "", fmt.Errorf("unknown answer %q", kind)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		return "", err
	}
	if kind == "$" {
		b := make([]byte, n+2)
		_, err := io.ReadFull(r, b)
		return string(b[:n]), err
	}
	elements := make([]string, n)
	for i := range elements {
		if elements[i], err = readAnswer(r); err != nil {
			return "", err
		}
	}
	return strings.Join(elements, "\n"), nil
}

// freePort returns a port that nobody listens on.
func freePort(tb testing.TB) string {
	tb.Helper()
	_, port, err := net.SplitHostPort(freeport.Address(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return port
}
