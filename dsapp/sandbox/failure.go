package sandbox

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Failure is what goes wrong with every call of a command while it is switched
// on. FailPartial, FailOversized, FailDeep and FailDoctype spoil the answer of a
// command that took effect, so that repeating it repeats the effect; the others
// happen in its place.
type Failure struct {
	kind   failureKind
	status string
}

type failureKind int

const (
	noFailure failureKind = iota
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

// Sizes of the oversized and the deep answer: over any limit that a client
// should have.
const (
	oversizedBytes = 2 << 20
	deepElements   = 10_000
)

// NoFailure switches a failure off.
func NoFailure() Failure { return Failure{} }

// FailReset reads the request and resets the connection.
func FailReset() Failure { return Failure{kind: failReset} }

// FailHang reads the request and answers nothing until the caller gives up.
func FailHang() Failure { return Failure{kind: failHang} }

// FailHTTP answers HTTP status 500 with plain text.
func FailHTTP() Failure { return Failure{kind: failHTTP} }

// FailFault answers HTTP status 500 with a SOAP Fault Server or Receiver.
func FailFault() Failure { return Failure{kind: failFault} }

// FailStatus answers RET_FAILURE with a status such as STAT_COMMS; the command
// takes no effect. A name that the sandbox does not know gets the number 9000.
func FailStatus(name string) Failure { return Failure{kind: failStatus, status: name} }

// FailPartial announces the whole answer, sends half of it and closes the connection.
func FailPartial() Failure { return Failure{kind: failPartial} }

// FailOversized answers with 2 MiB more than the answer needs. The answer is
// otherwise right; so are those of FailDeep and FailDoctype.
func FailOversized() Failure { return Failure{kind: failOversized} }

// FailDeep answers with 10,000 elements inside each other in the SOAP Header.
func FailDeep() Failure { return Failure{kind: failDeep} }

// FailDoctype answers with a document type declaration that defines an entity.
func FailDoctype() Failure { return Failure{kind: failDoctype} }

// interrupt lets a failure happen that takes the place of an answer. It
// reports whether it did.
func (f Failure) interrupt(ctx context.Context, w http.ResponseWriter) bool {
	switch f.kind {
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

// refusal is the error that takes the place of the command's outcome, nil if
// the command is to take effect.
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

// header is what the failure puts into the SOAP Header of the answer.
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

// send sends a finished answer, damaged if the failure says so.
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
	_, _ = w.Write([]byte(body)) // a caller that is gone needs no answer
}

// reset closes the connection without an answer; TCP sees a reset. Over HTTP/2
// it is the stream that is reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	raw := conn
	if t, ok := raw.(interface{ NetConn() net.Conn }); ok {
		raw = t.NetConn()
	}
	if t, ok := raw.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = raw.Close()
}
