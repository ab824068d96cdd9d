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
)

const (
	// binary is the server, which the package redis-server of Debian installs.
	binary = "redis-server"
	// startTimeout bounds one start, startAttempts the ports that are tried.
	startTimeout  = 30 * time.Second
	startAttempts = 5
	// commandTimeout bounds Command.
	commandTimeout = 10 * time.Second
	// loopback is where everything listens.
	loopback = "127.0.0.1"
	// inUse is what a server prints that finds a port taken.
	inUse = "Address already in use"
)

// Server is a running Redis server that keeps nothing on disk.
type Server struct {
	addr string
	cmd  *exec.Cmd
	args []string
	done chan struct{} // closed when the process has ended
	stop sync.Once
}

// Start starts a server on a free port of the loopback interface, with arguments
// added to the command line, and stops it when the test and its subtests are
// over. The test fails if the server is not installed.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return startFree(tb, func(port string) []string {
		return append(append(arguments(port), "--databases", "1"), args...)
	})
}

// StartTLS is Start for a server that listens on a second port for TLS, which it
// returns the address of. The files are a certificate, its key and the authorities
// of clients' certificates, which are required.
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

// arguments returns the command line of a server that keeps nothing. Replication
// without a file would count a replica as up to date a second before it confirms
// anything.
func arguments(port string) []string {
	return []string{"--bind", loopback, "--port", port, "--save", "", "--appendonly", "no", "--repl-diskless-sync", "no"}
}

// startFree starts a server with the arguments for a free port. It tries other
// ports if another process is faster.
func startFree(tb testing.TB, arguments func(port string) []string) *Server {
	tb.Helper()
	path, err := exec.LookPath(binary)
	if err != nil {
		tb.Fatalf("this test needs a Redis server: install the program %s (%v)", binary, err)
	}
	var output string
	for range startAttempts {
		port := freePort(tb)
		s, log, err := start(path, tb.TempDir(), port, arguments(port))
		if err == nil {
			tb.Cleanup(s.Stop)
			return s
		}
		output = fmt.Sprintf("%v\n%s", err, log)
		if !strings.Contains(log, inUse) {
			break
		}
	}
	tb.Fatalf("%s does not start: %s", binary, output)
	return nil
}

// start starts a server that works in folder and waits until it answers on port.
// If it does not, it returns what the server printed.
func start(path, folder, port string, args []string) (*Server, string, error) {
	var log output
	s := &Server{addr: net.JoinHostPort(loopback, port), args: args, done: make(chan struct{})}
	s.cmd = exec.Command(path, args...)
	s.cmd.Dir = folder
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	s.cmd.SysProcAttr = processAttributes()

	started := make(chan error)
	go func() {
		// The server dies with the thread that started it, so this thread must
		// not end before the server does.
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

	deadline := time.After(startTimeout)
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
			return nil, log.String(), fmt.Errorf("no answer within %v", startTimeout)
		}
	}
}

// Addr returns the server's host and port.
func (s *Server) Addr() string { return s.addr }

func (s *Server) port() string { return s.addr[strings.LastIndexByte(s.addr, ':')+1:] }

// running reports whether the server was not stopped. It may be frozen.
func (s *Server) running() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// Stop ends the server at once. Stopping again does nothing.
func (s *Server) Stop() {
	s.stop.Do(func() {
		_ = s.cmd.Process.Kill()
		<-s.done
	})
}

// Restart starts a stopped server again, at the same address and with the files
// that it left. What a server should still have then, it has to keep on disk: see
// the arguments of Start. The test fails if the address was taken in between.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.Stop()
	again, log, err := start(s.cmd.Path, s.cmd.Dir, s.port(), s.args)
	if err != nil {
		tb.Fatalf("%s does not start again: %v\n%s", binary, err, log)
	}
	s.cmd, s.done, s.stop = again.cmd, again.done, sync.Once{}
}

// Freeze suspends the server: it keeps its connections and answers nothing, until
// Thaw or Stop.
func (s *Server) Freeze(tb testing.TB) {
	tb.Helper()
	s.signal(tb, syscall.SIGSTOP)
}

// Thaw resumes a frozen server.
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

// Fill has other clients write values of these sizes until the server has no memory left,
// and go on trying until stop is called, which lifts the limit of the memory, or the test
// is over. Do not use small values: a server enlarges its table of keys beyond its limit.
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

// Command sends a command on a connection of its own and returns the answer: a
// string as it is, an integer in decimal, an array with a line for each element.
// The test fails on every error, of Redis too.
func (s *Server) Command(tb testing.TB, args ...string) string {
	tb.Helper()
	answer, err := s.command(args...)
	if err != nil {
		tb.Fatalf("redis command %s: %v", args[0], err)
	}
	return answer
}

func (s *Server) command(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
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

// readAnswer reads one value of the second version of the Redis protocol.
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

// await polls until done reports true.
func await(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(startTimeout)
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			tb.Fatalf("after %v: still waiting for %s", startTimeout, what)
		}
	}
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

// output collects what the server prints.
type output struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(p)
}

// String returns what was printed so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}
