package sandbox

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Failure is a simulated failure of a command, set by Server.Fail. With FailPartial,
// FailOversized, FailDeep, FailDoctype and FailDelay the command is carried out; all but the
// last damage its answer. With the others the command is not carried out.
type Failure struct {
	kind   failureKind
	status string
	delay  time.Duration
	times  int // calls that are left; 0 means without end
}

// Times returns a failure of the next n calls, at least 1, instead of all.
func (f Failure) Times(n int) Failure {
	f.times = n
	return f
}

type failureKind int

const (
	noFailure failureKind = iota
	failRefuse
	failDelay
	failReset
	failHang
	failHTTP
	failFault
	failStatus
	failPartial
	failOversized
	failDeep
	failDoctype
)

// Sizes of the oversized and the deep answer, beyond any limit that a client should have.
const (
	oversizedBytes = 2 << 20
	deepElements   = 10_000
)

// NoFailure ends a failure.
func NoFailure() Failure { return Failure{} }

// FailRefuse resets new connections before the TLS handshake, so that no command is sent. A
// connection is refused whatever it is for, so this is a failure of EveryOperation only.
// Connections that are open stay open.
func FailRefuse() Failure { return Failure{kind: failRefuse} }

// FailDelay carries the command out after a time.
func FailDelay(d time.Duration) Failure { return Failure{kind: failDelay, delay: d} }

// FailReset reads the request and resets the connection.
func FailReset() Failure { return Failure{kind: failReset} }

// FailHang reads the request and does not answer. The call ends when the caller closes the
// connection.
func FailHang() Failure { return Failure{kind: failHang} }

// FailHTTP answers HTTP status 500 with plain text.
func FailHTTP() Failure { return Failure{kind: failHTTP} }

// FailFault answers HTTP status 500 with a SOAP Fault Server or Receiver.
func FailFault() Failure { return Failure{kind: failFault} }

// FailStatus answers RET_FAILURE with a status such as STAT_COMMS. Unknown names have the
// number 9000.
func FailStatus(name string) Failure { return Failure{kind: failStatus, status: name} }

// FailPartial declares the length of the whole answer, sends half of it and closes the
// connection.
func FailPartial() Failure { return Failure{kind: failPartial} }

// FailOversized adds 2 MiB to the SOAP Header of a correct answer.
func FailOversized() Failure { return Failure{kind: failOversized} }

// FailDeep adds 10,000 nested elements to the SOAP Header of a correct answer.
func FailDeep() Failure { return Failure{kind: failDeep} }

// FailDoctype adds a document type declaration with an entity to a correct answer.
func FailDoctype() Failure { return Failure{kind: failDoctype} }

// interrupt simulates a failure that replaces the whole answer. It reports whether f is
// one.
func (f Failure) interrupt(ctx context.Context, w http.ResponseWriter) bool {
	switch f.kind {
	case failDelay:
		select {
		case <-time.After(f.delay):
			return false
		case <-ctx.Done():
			panic(http.ErrAbortHandler)
		}
	case failReset:
		reset(w)
	case failHang:
		<-ctx.Done()
		panic(http.ErrAbortHandler)
	case failHTTP:
		http.Error(w, "simulated failure", http.StatusInternalServerError)
	default:
		return false
	}
	return true
}

// refusal returns the error of a failure that replaces the result of the command, nil if
// the command is to be carried out.
func (f Failure) refusal() error {
	switch f.kind {
	case failFault:
		return &fault{serverFault, "simulated failure"}
	case failStatus:
		return refuse(f.status, 0, "simulated failure")
	default:
		return nil
	}
}

// header returns what the failure adds to the SOAP Header of the answer.
func (f Failure) header() string {
	switch f.kind {
	case failOversized:
		return "<padding>" + strings.Repeat("A", oversizedBytes) + "</padding>"
	case failDeep:
		return strings.Repeat("<deep>", deepElements) + strings.Repeat("</deep>", deepElements)
	default:
		return ""
	}
}

// send sends the answer, with the damage of the failure.
func (f Failure) send(w http.ResponseWriter, status int, body string) {
	if f.kind == failDoctype {
		declaration, rest, _ := strings.Cut(body, "\n")
		body = declaration + "\n" + `<!DOCTYPE Envelope [<!ENTITY sandbox "entity">]>` + "\n" + rest
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if f.kind == failPartial {
		_, _ = w.Write([]byte(body[:len(body)/2]))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write([]byte(body)) // the only error is a lost connection
}

// reset resets the TCP connection, or with HTTP/2 the stream.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	resetConnection(conn)
}

// resetConnection resets a TCP connection, with or without TLS.
func resetConnection(conn net.Conn) {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = conn.Close()
}
