package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/soapanswer"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// bomb returns an answer of bombSize bytes, compressed.
var bomb = sync.OnceValue(func() string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	block := bytes.Repeat([]byte(" "), 1<<20)
	for range bombSize / len(block) {
		_, _ = w.Write(block)
	}
	_ = w.Close()
	return b.String()
})

// padding returns the beginning of an answer that goes on with padding.
func padding(c *testbed.Command) string {
	return testbed.EnvelopeStart + "<" + c.Element + ">" + soapanswer.Success + "<more>"
}

// trapConnections returns an address that must not be contacted, and counts its connections.
func trapConnections(t *testing.T) (address string, contacts *atomic.Int64) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	contacts = new(atomic.Int64)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			contacts.Add(1)
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String(), contacts
}

// issueCertificate returns the configuration of a server with a certificate, issued by the
// authority in the directory of certs or by an unknown one.
func issueCertificate(t *testing.T, certs sandbox.Certificates, known bool, edit func(c *x509.Certificate)) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "authentication server"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1).To4()}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	edit(template)
	parent, signer := template, any(key)
	if known {
		pair, err := tls.LoadX509KeyPair(certs.Authority, filepath.Join(filepath.Dir(certs.Authority), "ca.key"))
		require.NoError(t, err)
		parent, signer = pair.Leaf, pair.PrivateKey
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
}

// connectionFaults are the faults of connections.
func connectionFaults(t *testing.T, f *testbed.Faulty, certs sandbox.Certificates) []fault {
	t.Helper()
	older := f.TLS.Clone()
	older.MinVersion, older.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	mutual := f.TLS.Clone()
	mutual.ClientAuth = tls.RequireAnyClientCert
	keep := func(*x509.Certificate) {}
	// Waits until the kernel has received something, without reading it.
	peek := func(c net.Conn) {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			return
		}
		_ = raw.Read(func(fd uintptr) bool {
			_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
			return err != syscall.EAGAIN
		})
	}
	return []fault{
		{name: "refused", kind: faultUnsent, Misconduct: testbed.Misconduct{Refuse: true}},
		{name: "closed before the handshake", kind: faultUnsent, Misconduct: testbed.Misconduct{Connected: func(context.Context, net.Conn) {}}},
		{name: "reset in the handshake", kind: faultUnsent, Misconduct: testbed.Misconduct{Connected: func(_ context.Context, c net.Conn) {
			peek(c)
			_ = c.(*net.TCPConn).SetLinger(0)
		}}},
		{name: "no TLS", kind: faultUnsent, Misconduct: testbed.Misconduct{Connected: func(_ context.Context, c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}}},
		{name: "certificate of another authority", kind: faultUnsent, Misconduct: testbed.Misconduct{TLS: issueCertificate(t, certs, false, keep)}, says: "unknown authority"},
		{name: "expired certificate", kind: faultUnsent, says: "expired", Misconduct: testbed.Misconduct{TLS: issueCertificate(t, certs, true, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Hour)
		})}},
		{name: "certificate of another name", kind: faultUnsent, says: "not 127.0.0.1", Misconduct: testbed.Misconduct{TLS: issueCertificate(t, certs, true, func(c *x509.Certificate) {
			c.IPAddresses = []net.IP{net.IPv6loopback}
		})}},
		{name: "certificate for clients", kind: faultUnsent, Misconduct: testbed.Misconduct{TLS: issueCertificate(t, certs, true, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})}},
		{name: "TLS 1.1 only", kind: faultUnsent, Misconduct: testbed.Misconduct{TLS: older}, says: "protocol version"},
		{name: "renewed certificate", kind: faultNone, Misconduct: testbed.Misconduct{TLS: issueCertificate(t, certs, true, keep)}},
		{name: "client certificate demanded", kind: faultEarly, Misconduct: testbed.Misconduct{TLS: mutual}},
		{name: "reset after the handshake", kind: faultEarly, Misconduct: testbed.Misconduct{Established: func(_ context.Context, c *tls.Conn) { testbed.ResetConnection(c) }}},
		{name: "closed after the handshake", kind: faultEarly, Misconduct: testbed.Misconduct{Established: func(_ context.Context, c *tls.Conn) { _ = c.Close() }}},
		{name: "reset with the command on its way", kind: faultLost, unread: true, Misconduct: testbed.Misconduct{Established: func(_ context.Context, c *tls.Conn) {
			_, _ = c.Read(make([]byte, 1))
			testbed.ResetConnection(c)
		}}},
	}
}

// answerFaults are the faults of answers.
func answerFaults(forbidden string) []fault {
	with := func(text func(x *testbed.Incoming) string) testbed.Misconduct {
		return testbed.Answering(func(x *testbed.Incoming) { x.Respond(http.StatusOK, testbed.XML, text(x)) })
	}
	rows := []fault{
		{name: "reset", kind: faultLost, Misconduct: testbed.Answering((*testbed.Incoming).Reset)},
		{name: "closed", kind: faultLost, Misconduct: testbed.Answering(func(*testbed.Incoming) {})},
		{name: "reset in the answer", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("")
			x.Send(x.Answer()[:200])
			x.Reset()
		})},

		{name: "Fault Server", kind: faultServer, Misconduct: testbed.Answering(testbed.SOAPFault("1.1", 500, "Server"))},
		{name: "Fault Server with status 200", kind: faultServer, Misconduct: testbed.Answering(testbed.SOAPFault("1.1", 200, "Server.Busy"))},
		{name: "Fault Receiver", kind: faultServer, Misconduct: testbed.Answering(testbed.SOAPFault("1.2", 500, "Receiver"))},
		{name: "Fault Client", kind: faultSender, Misconduct: testbed.Answering(testbed.SOAPFault("1.1", 500, "Client"))},
		{name: "Fault Sender", kind: faultSender, Misconduct: testbed.Answering(testbed.SOAPFault("1.2", 400, "Sender"))},
		{name: "Fault VersionMismatch", kind: faultSender, Misconduct: testbed.Answering(testbed.SOAPFault("1.1", 500, "VersionMismatch"))},
		{name: "Fault of its own", kind: faultServer, Misconduct: testbed.Answering(testbed.SOAPFault("1.1", 500, "Other"))},

		{name: "status 500 with HTML", kind: faultBad, says: "HTTP status 500", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Respond(http.StatusInternalServerError, "text/html", "<html>"+x.Request+"</html>")
		})},
		{name: "status 500 without a body", kind: faultBad, says: "HTTP status 500", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})},
		{name: "status 500 with a right answer", kind: faultBad, says: "HTTP status 500", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Respond(http.StatusInternalServerError, testbed.XML, x.Answer())
		})},
		{name: "status 404", kind: faultBad, says: "HTTP status 404", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Respond(http.StatusNotFound, "text/plain", x.Request)
		})},
		{name: "status 401", kind: faultBad, says: "HTTP status 401", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})},
		{name: "status 503 to try again", kind: faultBad, says: "HTTP status 503", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})},
		{name: "status 408", kind: faultBad, says: "HTTP status 408", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})},
		{name: "status 204", kind: faultBad, says: "HTTP status 204", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		})},
		{name: "status 101", kind: faultBad, says: "HTTP status 101", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: soap\r\n\r\n")
			x.Send(x.Answer())
		})},
		{name: "status 103 first", kind: faultNone, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
			x.Respond(http.StatusOK, testbed.XML, x.Answer())
		})},
		{name: "status 103 only", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) { x.Pour("HTTP/1.1 103 Early Hints\r\n\r\n", 0) })},
		{name: "no HTTP", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) { x.Send("hello " + x.Values() + "\r\n\r\n") })},
		{name: "HTTP/2", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) { x.Send("\x00\x00\x00\x04\x00\x00\x00\x00\x00") })},
		{name: "HTTP/1.0", kind: faultNone, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n" + x.Answer())
		})},
		{name: "several lengths", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("Content-Length: 10\r\nContent-Length: 20\r\n")
			x.Send(x.Answer())
		})},
		{name: "huge header", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("X: " + strings.Repeat(x.Values(), 2000) + "\r\n")
			x.Send(x.Answer())
		})},
		{name: "header without end", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 200 OK\r\n")
			x.Pour("X: y\r\n", 0)
		})},

		{name: "cut in a tag", kind: faultBad, says: "malformed XML", Misconduct: with(func(x *testbed.Incoming) string {
			return x.Answer()[:len(testbed.EnvelopeStart)+5]
		})},
		{name: "cut in the envelope", kind: faultBad, says: "malformed XML", Misconduct: with(func(x *testbed.Incoming) string {
			return strings.TrimSuffix(x.Answer(), "</e:Envelope>")
		})},
		{name: "cut without a length", kind: faultBad, says: "malformed XML", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("")
			x.Send(x.Answer()[:200])
		})},
		{name: "cut with a length", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			text := x.Answer()
			x.Head(fmt.Sprintf("Content-Length: %d\r\n", len(text)))
			x.Send(text[:200])
		})},
		{name: "whole with a greater length", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			text := x.Answer()
			x.Head(fmt.Sprintf("Content-Length: %d\r\n", len(text)+1))
			x.Send(text)
		})},
		{name: "cut in the chunks", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("Transfer-Encoding: chunked\r\n")
			text := x.Answer()
			x.Send(fmt.Sprintf("%x\r\n%s\r\n", 200, text[:200]))
		})},
		{name: "whole without the last chunk", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("Transfer-Encoding: chunked\r\n")
			text := x.Answer()
			x.Send(fmt.Sprintf("%x\r\n%s\r\n", len(text), text))
		})},
		{name: "no chunk", kind: faultLost, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("Transfer-Encoding: chunked\r\n")
			x.Send(x.Values() + "\r\n")
		})},

		{name: "long with a length", kind: faultBad, says: "longer than", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			start := padding(x.Command)
			x.Head(fmt.Sprintf("Content-Length: %d\r\n", len(start)+bombSize))
			x.Send(start)
			x.Pour("x", bombSize)
		})},
		{name: "chunks without end", kind: faultBad, says: "longer than", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("Transfer-Encoding: chunked\r\n")
			start := padding(x.Command)
			x.Send(fmt.Sprintf("%x\r\n%s\r\n", len(start), start))
			x.Pour("10\r\n0123456789ABCDEF\r\n", 0)
		})},
		{name: "blanks without end before the envelope", kind: faultBad, says: "longer than", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("")
			x.Pour(" ", 0)
		})},
		{name: "blanks without end after the envelope", kind: faultBad, says: "longer than", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("")
			x.Send(x.Answer())
			x.Pour(" ", 0)
		})},
		{name: "compressed bomb", kind: faultBad, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("Content-Encoding: gzip\r\n")
			x.Send(bomb())
		})},
		{name: "deep", kind: faultBad, says: "nested deeper", Misconduct: with(func(x *testbed.Incoming) string {
			return padding(x.Command) + strings.Repeat("<a>", 100_000) + strings.Repeat("</a>", 100_000)
		})},
		{name: "many elements", kind: faultBad, says: "elements", Misconduct: with(func(x *testbed.Incoming) string {
			return padding(x.Command) + strings.Repeat("<a/>", 100_000)
		})},
		{name: "many attributes", kind: faultBad, says: "more than 32 attributes", Misconduct: with(func(x *testbed.Incoming) string {
			return padding(x.Command) + "<a" + strings.Repeat(` b=""`, 100_000) + "/>"
		})},
		{name: "entity bomb", kind: faultBad, says: "document type", Misconduct: with(func(x *testbed.Incoming) string {
			var entities strings.Builder
			entities.WriteString(`<!ENTITY l0 "lol">`)
			for i := range 30 {
				fmt.Fprintf(&entities, `<!ENTITY l%d "%s">`, i+1, strings.Repeat(fmt.Sprintf("&l%d;", i), 10))
			}
			return `<?xml version="1.0"?><!DOCTYPE a [` + entities.String() + `]>` + strings.TrimPrefix(padding(x.Command), `<?xml version="1.0" encoding="UTF-8"?>`) + "&l30;"
		})},
		{name: "external entity", kind: faultBad, says: "document type", Misconduct: with(func(x *testbed.Incoming) string {
			return `<?xml version="1.0"?><!DOCTYPE a SYSTEM "http://` + forbidden + `/dtd" [<!ENTITY % e SYSTEM "http://` + forbidden + `/e"> %e; <!ENTITY f SYSTEM "http://` +
				forbidden + `/f">]><a>&f;</a>`
		})},
		{name: "undeclared entity", kind: faultBad, says: "malformed XML", Misconduct: with(func(x *testbed.Incoming) string { return padding(x.Command) + "&f;" })},

		{name: "HTML", kind: faultBad, says: "media type", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Respond(http.StatusOK, "text/html", "<html>"+x.Request+"</html>")
		})},
		{name: "no media type", kind: faultBad, says: "media type", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + x.Answer())
		})},
		{name: "character set in the header", kind: faultBad, says: "character set", Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Respond(http.StatusOK, "text/xml; charset=iso-8859-1", x.Answer())
		})},
		{name: "character set in the document", kind: faultBad, says: "UTF-8", Misconduct: with(func(x *testbed.Incoming) string {
			return strings.Replace(x.Answer(), "UTF-8", "ISO-8859-1", 1)
		})},
		{name: "empty", kind: faultBad, says: "empty document", Misconduct: with(func(*testbed.Incoming) string { return "" })},
		{name: "empty envelope", kind: faultBad, says: "empty body", Misconduct: with(func(*testbed.Incoming) string { return testbed.EnvelopeStart + testbed.EnvelopeEnd })},
		{name: "echo", kind: faultBad, Misconduct: with(func(x *testbed.Incoming) string { return x.Request })},
		{name: "answer of another operation", kind: faultBad, says: "another operation", Misconduct: with(func(x *testbed.Incoming) string {
			return strings.ReplaceAll(x.Answer(), x.Element, "logonResponse")
		})},
		{name: "success without codes", kind: faultBad, says: "resultCodes", Misconduct: with(func(x *testbed.Incoming) string {
			return strings.Replace(x.Answer(), soapanswer.Success, "", 1)
		})},

		{name: "refusal", kind: faultRefusal, status: "STAT_USER_UNKNOWN", code: 4711, Misconduct: with(func(x *testbed.Incoming) string {
			return x.Refusal("STAT_USER_UNKNOWN", 4711, x.Values())
		})},
		{name: "invalid credentials", kind: faultRefusal, status: "STAT_INVCREDENTIALS", code: 1000, Misconduct: with(func(x *testbed.Incoming) string {
			return x.Refusal("STAT_INVCREDENTIALS", 1000, x.Values())
		})},
		{name: "unspecified error", kind: faultRefusal, status: "STAT_ERROR", code: -1, Misconduct: with(func(x *testbed.Incoming) string {
			return x.Refusal("STAT_ERROR", -1, x.Values())
		})},
	}
	for code, failure := range map[string]string{
		"RET_SUCCESS": "RET_FAILURE", "STAT_SUCCESS": "STAT_NEW", "<returnCode>0": "<returnCode>-1", "<statusCode>0": "<statusCode>1007",
	} {
		rows = append(rows, fault{name: "success but for " + code, kind: faultBad, says: "resultCodes contradict", Misconduct: with(func(x *testbed.Incoming) string {
			return strings.Replace(x.Answer(), code, failure, 1)
		})})
	}
	for _, status := range []string{"301", "302", "303", "307", "308"} {
		rows = append(rows, fault{name: "status " + status, kind: faultBad, says: "HTTP status " + status, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 " + status + " Elsewhere\r\nLocation: https://" + forbidden + "/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})})
	}
	for status, code := range map[string]int{"STAT_COMMS": -10, "STAT_MEMORY": -3, "STAT_OS_FAILURE": -12, "STAT_LICENCE": -11} {
		rows = append(rows, fault{name: status, kind: faultCoded, status: status, code: code, Misconduct: with(func(x *testbed.Incoming) string {
			return x.Refusal(status, code, x.Values())
		})})
	}
	return rows
}

// slowFaults are the faults with which calls run into their timeout.
func slowFaults() []fault {
	return []fault{
		{name: "no handshake", kind: faultUnsent, Misconduct: testbed.Misconduct{Connected: func(over context.Context, _ net.Conn) { <-over.Done() }}},
		{name: "nothing is read", kind: faultLate, unread: true, Misconduct: testbed.Misconduct{Established: func(over context.Context, _ *tls.Conn) { <-over.Done() }}},
		{name: "no answer", kind: faultLate, Misconduct: testbed.Answering((*testbed.Incoming).Hang)},
		{name: "status 103 dripping", kind: faultLate, Misconduct: testbed.Answering(func(x *testbed.Incoming) { x.Drip("HTTP/1.1 103 Early Hints\r\n\r\n") })},
		{name: "header dripping", kind: faultLate, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Send("HTTP/1.1 200 OK\r\n")
			x.Drip("X: y\r\n")
		})},
		{name: "answer dripping", kind: faultLate, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("")
			x.Drip(x.Answer())
		})},
		{name: "answer dripping in chunks", kind: faultLate, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("Transfer-Encoding: chunked\r\n")
			x.Drip("1\r\n \r\n")
		})},
		{name: "half an answer", kind: faultLate, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("Content-Length: 1000\r\n")
			x.Send(x.Answer()[:200])
			x.Hang()
		})},
		{name: "answer without end", kind: faultLate, Misconduct: testbed.Answering(func(x *testbed.Incoming) {
			x.Head("")
			x.Send(x.Answer())
			x.Hang()
		})},
	}
}
