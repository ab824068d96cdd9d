package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
)

const (
	offlinePath      = "/rest/v2/provisioning/MdlRegister"
	passwordPath     = "/rest/v2/authentication/authUser"
	retrievalPath    = "/rest/v2/authentication/push/getPreparedSecureChallenge"
	notificationPath = "/rest/v2/notification/push/updateNotificationID"

	// faultMark is in every command of these tests, and in none of a load.
	faultMark = "FLT"

	// faultLongest is what no answer may take that does not depend on a timeout.
	faultLongest = 10 * time.Second
	// slowTimeout is the timeout of calls where the server is slow, and faultGrace what
	// a busy machine may add.
	slowTimeout = time.Second
	faultGrace  = 5 * time.Second

	// maxGrowth is what a whole table may add to the peak of the memory, in KiB. The
	// most expensive row is the one with many attributes.
	maxGrowth = 64 << 10
	bombSize  = 50 << 20

	envelopeStart = `<?xml version="1.0" encoding="UTF-8"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>`
	envelopeEnd   = `</e:Body></e:Envelope>`
	soapSuccess   = `<resultCodes><returnCodeEnum>RET_SUCCESS</returnCodeEnum><statusCodeEnum>STAT_SUCCESS</statusCodeEnum>` +
		`<returnCode>0</returnCode><statusCode>0</statusCode></resultCodes>`
)

// retries says where a command may go after a fault.
type retries int

const (
	// retryNever: nowhere, unless nothing of it was sent.
	retryNever retries = iota
	// retryBroken: to the next instance, if the server said that it is out of order.
	retryBroken
	// retryHarmless: to one more instance after any fault.
	retryHarmless
)

// faultCommand is a command that meets a fault.
type faultCommand struct {
	operation string // of the authentication server, as the log has it
	retries   retries
	// search says that each instance can be the one that holds what the command
	// is about: nobody can say no as long as one was not asked.
	search    bool
	path, key string
	// body of the request; secret must not turn up anywhere.
	body func(secret string) string
	// element of the answer and what a success holds in it.
	element, result string
}

var (
	registering = faultCommand{
		operation: "PROVISIONCMD_MDL_REGISTER", path: offlinePath, key: backEndKey,
		body: func(secret string) string {
			return fmt.Sprintf(`{"userID":"FLT.user","domain":%q,"password":%q}`, domain, secret)
		},
		element: "provisioningExecuteResponse",
		result: "<resultAttribute><attributes><attributeID>PROVFLD_REGISTRATIONID</attributeID><value>FLT%d</value></attributes>" +
			"<attributes><attributeID>PROVFLD_ACTIVATION_MESSAGE</attributeID><value>0A0B</value></attributes></resultAttribute>",
	}
	authenticating = faultCommand{
		operation: "authUser", path: passwordPath, key: frontEndKey,
		body: func(secret string) string {
			return fmt.Sprintf(`{"userID":"FLT.user","domain":%q,"password":%q}`, domain, secret)
		},
		element: "authUserResponse",
		result:  "<resultAttribute><attributes><attributeID>CREDFLD_USERID</attributeID><value>FLT%d</value></attributes></resultAttribute>",
	}
	retrieving = faultCommand{
		operation: "getPreparedSecureChallenge", retries: retryBroken, search: true, path: retrievalPath, key: frontEndKey,
		body: func(secret string) string {
			return fmt.Sprintf(`{"serialNumber":"FLT1234567-1","challengeKey":%q}`, secret)
		},
		element: "getPreparedSecureChallengeResponse",
		result:  "<result><requestMessage>0A0B</requestMessage><more>%d</more></result>",
	}
	notifying = faultCommand{
		operation: "updateDevicePNID", retries: retryHarmless, path: notificationPath, key: frontEndKey,
		body: func(secret string) string {
			return fmt.Sprintf(`{"userID":"FLT.user","domain":%q,"digipassInstanceID":"FLT1234567-1","encryptedNotificationID":%q}`, domain, secret)
		},
		element: "updateDevicePNIDResponse",
		result:  "<more>%d</more>",
	}
	// addingDevice belongs to the instance that has the registration.
	addingDevice = faultCommand{
		operation: "PROVISIONCMD_MDL_ADD_DEVICE", path: addDevicePath, key: frontEndKey,
		body: func(registration string) string {
			return fmt.Sprintf(`{"registrationIdentifier":%q,"deviceCode":"12345678901234567890123456"}`, registration)
		},
		element: "provisioningExecuteResponse",
		result: "<resultAttribute><attributes><attributeID>PROVFLD_INSTANCE_ACTIVATION_MESSAGE</attributeID><value>0A0B</value></attributes></resultAttribute>" +
			"<more>%d</more>",
	}

	// faultCommands are those of the table: at least one that may be sent again
	// after each kind of fault.
	faultCommands = []*faultCommand{&registering, &authenticating, &retrieving, &notifying}
)

// answerCount counts right answers, each of which is different.
var answerCount atomic.Int64

// answer is the right answer in XML.
func (c *faultCommand) answer() string { return c.answerWith(soapSuccess, "") }

func (c *faultCommand) answerWith(codes, more string) string {
	return envelopeStart + "<" + c.element + ">" + codes + fmt.Sprintf(c.result, answerCount.Add(1)) + more + "</" + c.element + ">" + envelopeEnd
}

// refusal is an answer without a result.
func (c *faultCommand) refusal(status string, code int, description string) string {
	return envelopeStart + "<" + c.element + "><resultCodes><returnCodeEnum>RET_FAILURE</returnCodeEnum><statusCodeEnum>" + status +
		"</statusCodeEnum><returnCode>-1</returnCode><statusCode>" + strconv.Itoa(code) + "</statusCode></resultCodes><errorStack><errors><errorCode>" +
		strconv.Itoa(code) + "</errorCode><errorDesc>" + description + "</errorDesc></errors></errorStack></" + c.element + ">" + envelopeEnd
}

// incoming is a command that has arrived.
type incoming struct {
	*tls.Conn
	*faultCommand
	request string
	// over ends when nobody waits for the answer any more.
	over context.Context
	// took is the time from the connection to the end of the command.
	took time.Duration
}

// write sends text as it is.
func (x *incoming) write(text string) bool {
	_, err := io.WriteString(x.Conn, text)
	return err == nil
}

// respond sends an HTTP answer.
func (x *incoming) respond(status int, contentType, body string) {
	x.write(fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), contentType, len(body), body))
}

const xmlType = "text/xml; charset=utf-8"

// head begins an answer without a length: the end of the connection is its end.
func (x *incoming) head(more string) bool {
	return x.write("HTTP/1.1 200 OK\r\nContent-Type: " + xmlType + "\r\nConnection: close\r\n" + more + "\r\n")
}

// reset closes the connection so that the other side gets an error, not an end.
func (x *incoming) reset() { resetConn(x.Conn) }

func resetConn(c *tls.Conn) {
	_ = c.NetConn().(*net.TCPConn).SetLinger(0)
	_ = c.NetConn().Close()
}

// hang keeps the connection until nobody waits any more.
func (x *incoming) hang() { <-x.over.Done() }

// drip sends a text again and again, a byte at a time.
func (x *incoming) drip(text string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for i := range len(text) {
			select {
			case <-tick.C:
			case <-x.over.Done():
				return
			}
			if !x.write(text[i : i+1]) {
				return
			}
		}
	}
}

// pour sends a text again and again, as fast as it is taken; size 0 has no end.
func (x *incoming) pour(text string, size int) {
	block := strings.Repeat(text, max(1, 64<<10/len(text)))
	for sent := 0; size == 0 || sent < size; sent += len(block) {
		if x.over.Err() != nil || !x.write(block) {
			return
		}
	}
}

// misconduct is what a server does to the commands of these tests. Without any it
// answers as it should.
type misconduct struct {
	refuse  bool                                // connections
	connect func(c net.Conn, o context.Context) // instead of TLS
	tls     *tls.Config
	shaken  func(c *tls.Conn, o context.Context) // after the handshake, instead of reading
	answer  func(x *incoming)                    // to a command
}

// faulty is an authentication server that misbehaves.
type faulty struct {
	URL     string
	address string
	config  *tls.Config
	others  http.Handler // for commands without the mark

	connections atomic.Int64

	mu        sync.Mutex
	listener  net.Listener
	conduct   misconduct
	over      context.Context
	cancel    context.CancelFunc
	open      map[net.Conn]struct{}
	arrived   map[string]int
	listening sync.WaitGroup
	serving   sync.WaitGroup
}

func startFaulty(t *testing.T, certs sandbox.Certificates, others http.Handler) *faulty {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certs.Certificate, certs.Key)
	require.NoError(t, err)
	f := &faulty{
		address: freeport.Address(t), others: others, open: make(map[net.Conn]struct{}),
		config: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}
	f.URL = "https://" + f.address + "/"
	f.over, f.cancel = context.WithCancel(context.Background())
	f.Misbehave(t, misconduct{})
	t.Cleanup(func() {
		f.stop()
		f.serving.Wait()
	})
	return f
}

// stop closes the listener and, with those that wait, all connections that
// commands of these tests have used.
func (f *faulty) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancel()
	if f.listener != nil {
		_ = f.listener.Close()
		f.listener = nil
	}
	for c := range f.open {
		_ = c.Close()
	}
}

// Misbehave changes what happens from now on, and forgets what has arrived. If it
// concerns more than the answers, all connections are closed.
func (f *faulty) Misbehave(t *testing.T, m misconduct) {
	t.Helper()
	f.mu.Lock()
	f.cancel()
	f.over, f.cancel = context.WithCancel(context.Background())
	changed := m.answer == nil || f.conduct.answer == nil
	f.conduct, f.arrived = m, make(map[string]int)
	listening := f.listener != nil
	f.mu.Unlock()
	if changed && f.others == nil {
		f.disconnect()
	}
	if m.refuse {
		f.mu.Lock()
		_ = f.listener.Close()
		f.listener = nil
		f.mu.Unlock()
		f.listening.Wait()
		return
	}
	if listening {
		return
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", f.address)
	require.NoError(t, err)
	f.mu.Lock()
	f.listener = l
	f.mu.Unlock()
	f.listening.Go(func() { f.accept(l) })
}

// disconnect closes all connections.
func (f *faulty) disconnect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.open {
		_ = c.Close()
	}
}

func (f *faulty) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		f.connections.Add(1)
		f.serving.Go(func() {
			f.mu.Lock()
			f.open[c] = struct{}{}
			m, over := f.conduct, f.over
			f.mu.Unlock()
			f.serve(over, c, m)
			_ = c.Close()
			f.mu.Lock()
			delete(f.open, c)
			f.mu.Unlock()
		})
	}
}

func (f *faulty) serve(over context.Context, raw net.Conn, m misconduct) {
	begun := time.Now()
	if m.connect != nil {
		m.connect(raw, over)
		return
	}
	config := f.config
	if m.tls != nil {
		config = m.tls
	}
	c := tls.Server(raw, config)
	// The next row must not end the handshake of a load.
	if c.HandshakeContext(context.WithoutCancel(over)) != nil {
		return
	}
	if m.shaken != nil {
		m.shaken(c, over)
		return
	}
	reader := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if !strings.Contains(string(body), faultMark) {
			if f.others == nil || !f.forward(c, r, body) {
				return
			}
			continue
		}
		f.answer(c, string(body), time.Since(begun))
		_ = c.Close() // with the alert that ends a connection, unless it is closed already
		return
	}
}

// forward has somebody else answer a command.
func (f *faulty) forward(c net.Conn, r *http.Request, body []byte) bool {
	r.Body = io.NopCloser(bytes.NewReader(body))
	w := httptest.NewRecorder()
	f.others.ServeHTTP(w, r.WithContext(context.Background()))
	resp := w.Result()
	resp.ContentLength = int64(w.Body.Len())
	return resp.Write(c) == nil
}

func (f *faulty) answer(c *tls.Conn, request string, took time.Duration) {
	for _, command := range append(slices.Clip(faultCommands), &addingDevice) {
		if !strings.Contains(request, command.operation) {
			continue
		}
		f.mu.Lock()
		f.arrived[command.operation]++
		m, over := f.conduct, f.over
		f.mu.Unlock()
		x := &incoming{Conn: c, faultCommand: command, request: request, over: over, took: took}
		if m.answer != nil {
			m.answer(x)
			return
		}
		x.respond(http.StatusOK, xmlType, x.answer())
		return
	}
}

// Arrived is how often a command was read to its end.
func (f *faulty) Arrived(operation string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.arrived[operation]
}

// faultKind is what a fault means for a command.
type faultKind int

const (
	// faultNone is none: the answer is right.
	faultNone faultKind = iota
	// faultUnsent: it is certain that the server has not seen the command.
	faultUnsent
	// faultLost, faultBad and faultLate: what became of the command is unknown.
	faultLost
	faultBad
	faultLate
	// faultEarly is faultLost or faultUnsent: the connection ended while the command
	// was about to be sent.
	faultEarly
	// faultServer is the server's word that it is out of order, in a SOAP Fault.
	faultServer
	// faultSender is one that blames the command.
	faultSender
	// faultCoded is faultServer in a status.
	faultCoded
	// faultRefusal is a refusal.
	faultRefusal
)

// faultReasons are what the log says about each kind.
var faultReasons = map[faultKind]string{
	faultUnsent: "command was not sent", faultLost: "connection lost after the command was sent", faultBad: "unusable answer",
	faultLate: "no answer in time", faultServer: "SOAP Fault", faultSender: "SOAP Fault",
}

// fault is a row of the table.
type fault struct {
	name string
	kind faultKind
	misconduct
	// unread says that the server reads no command.
	unread bool
	// status of a faultCoded and faultRefusal.
	status string
	code   int
	// says is a part of what the log has to say about the cause.
	says string
}

// faultOutcome is what a client gets and which instances get the command.
type faultOutcome struct {
	expectation
	primary, backup int
}

// outcomes are the documented ones of a command that meets the fault on the first
// of one or two instances. Only that of faultEarly is not settled.
func (f *fault) outcomes(c *faultCommand, two bool) []faultOutcome {
	ok := expectation{http.StatusOK, "STAT_SUCCESS", 0}
	comms := func(status int) expectation { return expectation{status, "STAT_COMMS", -10} }
	read := 1
	if f.unread {
		read = 0
	}
	elsewhere := func(permitted bool, o expectation) []faultOutcome {
		if permitted && two {
			return []faultOutcome{{ok, read, 1}}
		}
		return []faultOutcome{{o, read, 0}}
	}
	switch f.kind {
	case faultNone:
		return []faultOutcome{{ok, 1, 0}}
	case faultUnsent:
		read = 0
		return elsewhere(true, comms(http.StatusServiceUnavailable))
	case faultLost, faultBad:
		return elsewhere(c.retries == retryHarmless, comms(http.StatusBadGateway))
	case faultLate:
		return elsewhere(c.retries == retryHarmless, comms(http.StatusGatewayTimeout))
	case faultEarly:
		read = 0
		return append(elsewhere(true, comms(http.StatusServiceUnavailable)),
			elsewhere(c.retries == retryHarmless, comms(http.StatusBadGateway))...)
	case faultServer, faultCoded:
		alone := expectation{http.StatusBadGateway, "STAT_COMMS", -10}
		if f.kind == faultCoded {
			alone = expectation{http.StatusOK, f.status, f.code}
		}
		if c.search {
			alone = comms(http.StatusServiceUnavailable)
		}
		return elsewhere(c.retries != retryNever, alone)
	case faultSender:
		return elsewhere(false, comms(http.StatusBadGateway))
	default:
		return elsewhere(false, expectation{http.StatusOK, f.status, f.code})
	}
}

// soapFault answers with a Fault that repeats the command.
func soapFault(version string, status int, code string) func(x *incoming) {
	return func(x *incoming) {
		repeated := x.secretsOf()
		if version == "1.1" {
			x.respond(status, xmlType, envelopeStart+"<e:Fault><faultcode>e:"+code+"</faultcode><faultstring>"+repeated+"</faultstring></e:Fault>"+envelopeEnd)
			return
		}
		x.respond(status, "application/soap+xml; charset=utf-8", `<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"><e:Body><e:Fault><e:Code><e:Value>e:`+
			code+`</e:Value></e:Code><e:Reason><e:Text xml:lang="en">`+repeated+`</e:Text></e:Reason></e:Fault></e:Body></e:Envelope>`)
	}
}

// secretsOf gives the texts of the command, without its XML.
func (x *incoming) secretsOf() string {
	return strings.Join(strings.FieldsFunc(x.request, func(r rune) bool { return r == '<' || r == '>' }), " ")
}

// bomb is a right answer of bombSize bytes, compressed.
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

// padding begins an answer whose rest is text without an end.
func padding(c *faultCommand) string {
	return envelopeStart + "<" + c.element + ">" + soapSuccess + "<more>"
}

// trapConnections counts connections to an address that must not be contacted.
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

// issueCertificate makes a certificate of the authority in the directory of certs, or of one
// that nobody knows.
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

// connectionFaults concern all connections.
func connectionFaults(t *testing.T, f *faulty, certs sandbox.Certificates) []fault {
	t.Helper()
	older := f.config.Clone()
	older.MinVersion, older.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	mutual := f.config.Clone()
	mutual.ClientAuth = tls.RequireAnyClientCert
	keep := func(*x509.Certificate) {}
	// The kernel knows that something arrived before anybody has read it.
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
		{name: "refused", kind: faultUnsent, misconduct: misconduct{refuse: true}},
		{name: "closed before the handshake", kind: faultUnsent, misconduct: misconduct{connect: func(net.Conn, context.Context) {}}},
		{name: "reset in the handshake", kind: faultUnsent, misconduct: misconduct{connect: func(c net.Conn, _ context.Context) {
			peek(c)
			_ = c.(*net.TCPConn).SetLinger(0)
		}}},
		{name: "no TLS", kind: faultUnsent, misconduct: misconduct{connect: func(c net.Conn, _ context.Context) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}}},
		{name: "certificate of another authority", kind: faultUnsent, misconduct: misconduct{tls: issueCertificate(t, certs, false, keep)}, says: "unknown authority"},
		{name: "expired certificate", kind: faultUnsent, says: "expired", misconduct: misconduct{tls: issueCertificate(t, certs, true, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Hour)
		})}},
		{name: "certificate of another name", kind: faultUnsent, says: "not 127.0.0.1", misconduct: misconduct{tls: issueCertificate(t, certs, true, func(c *x509.Certificate) {
			c.IPAddresses = []net.IP{net.IPv6loopback}
		})}},
		{name: "certificate for clients", kind: faultUnsent, misconduct: misconduct{tls: issueCertificate(t, certs, true, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})}},
		{name: "TLS 1.1 only", kind: faultUnsent, misconduct: misconduct{tls: older}, says: "protocol version"},
		{name: "renewed certificate", kind: faultNone, misconduct: misconduct{tls: issueCertificate(t, certs, true, keep)}},
		{name: "client certificate demanded", kind: faultEarly, misconduct: misconduct{tls: mutual}},
		{name: "reset after the handshake", kind: faultEarly, misconduct: misconduct{shaken: func(c *tls.Conn, _ context.Context) { resetConn(c) }}},
		{name: "closed after the handshake", kind: faultEarly, misconduct: misconduct{shaken: func(c *tls.Conn, _ context.Context) { _ = c.Close() }}},
		{name: "reset with the command on its way", kind: faultLost, unread: true, misconduct: misconduct{shaken: func(c *tls.Conn, _ context.Context) {
			_, _ = c.Read(make([]byte, 1))
			resetConn(c)
		}}},
	}
}

// answerFaults concern the answer to one command.
func answerFaults(forbidden string) []fault {
	with := func(text func(x *incoming) string) misconduct {
		return answering(func(x *incoming) { x.respond(http.StatusOK, xmlType, text(x)) })
	}
	rows := []fault{
		{name: "reset", kind: faultLost, misconduct: answering((*incoming).reset)},
		{name: "closed", kind: faultLost, misconduct: answering(func(*incoming) {})},
		{name: "reset in the answer", kind: faultLost, misconduct: answering(func(x *incoming) {
			x.head("")
			x.write(x.answer()[:200])
			x.reset()
		})},

		{name: "Fault Server", kind: faultServer, misconduct: answering(soapFault("1.1", 500, "Server"))},
		{name: "Fault Server with status 200", kind: faultServer, misconduct: answering(soapFault("1.1", 200, "Server.Busy"))},
		{name: "Fault Receiver", kind: faultServer, misconduct: answering(soapFault("1.2", 500, "Receiver"))},
		{name: "Fault Client", kind: faultSender, misconduct: answering(soapFault("1.1", 500, "Client"))},
		{name: "Fault Sender", kind: faultSender, misconduct: answering(soapFault("1.2", 400, "Sender"))},
		{name: "Fault VersionMismatch", kind: faultSender, misconduct: answering(soapFault("1.1", 500, "VersionMismatch"))},
		{name: "Fault of its own", kind: faultServer, misconduct: answering(soapFault("1.1", 500, "Other"))},

		{name: "status 500 with HTML", kind: faultBad, says: "HTTP status 500", misconduct: answering(func(x *incoming) {
			x.respond(http.StatusInternalServerError, "text/html", "<html>"+x.request+"</html>")
		})},
		{name: "status 500 without a body", kind: faultBad, says: "HTTP status 500", misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})},
		{name: "status 500 with a right answer", kind: faultBad, says: "HTTP status 500", misconduct: answering(func(x *incoming) {
			x.respond(http.StatusInternalServerError, xmlType, x.answer())
		})},
		{name: "status 404", kind: faultBad, says: "HTTP status 404", misconduct: answering(func(x *incoming) {
			x.respond(http.StatusNotFound, "text/plain", x.request)
		})},
		{name: "status 401", kind: faultBad, says: "HTTP status 401", misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})},
		{name: "status 503 to try again", kind: faultBad, says: "HTTP status 503", misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})},
		{name: "status 408", kind: faultBad, says: "HTTP status 408", misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})},
		{name: "status 204", kind: faultBad, says: "HTTP status 204", misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		})},
		{name: "status 101", kind: faultBad, says: "HTTP status 101", misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: soap\r\n\r\n")
			x.write(x.answer())
		})},
		{name: "status 103 first", kind: faultNone, misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
			x.respond(http.StatusOK, xmlType, x.answer())
		})},
		{name: "status 103 only", kind: faultLost, misconduct: answering(func(x *incoming) { x.pour("HTTP/1.1 103 Early Hints\r\n\r\n", 0) })},
		{name: "no HTTP", kind: faultLost, misconduct: answering(func(x *incoming) { x.write("hello " + x.secretsOf() + "\r\n\r\n") })},
		{name: "HTTP/2", kind: faultLost, misconduct: answering(func(x *incoming) { x.write("\x00\x00\x00\x04\x00\x00\x00\x00\x00") })},
		{name: "HTTP/1.0", kind: faultNone, misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n" + x.answer())
		})},
		{name: "several lengths", kind: faultLost, misconduct: answering(func(x *incoming) {
			x.head("Content-Length: 10\r\nContent-Length: 20\r\n")
			x.write(x.answer())
		})},
		{name: "huge header", kind: faultLost, misconduct: answering(func(x *incoming) {
			x.head("X: " + strings.Repeat(x.secretsOf(), 2000) + "\r\n")
			x.write(x.answer())
		})},
		{name: "header without end", kind: faultLost, misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 200 OK\r\n")
			x.pour("X: y\r\n", 0)
		})},

		{name: "cut in a tag", kind: faultBad, says: "malformed XML", misconduct: with(func(x *incoming) string {
			return x.answer()[:len(envelopeStart)+5]
		})},
		{name: "cut in the envelope", kind: faultBad, says: "malformed XML", misconduct: with(func(x *incoming) string {
			return strings.TrimSuffix(x.answer(), "</e:Envelope>")
		})},
		{name: "cut without a length", kind: faultBad, says: "malformed XML", misconduct: answering(func(x *incoming) {
			x.head("")
			x.write(x.answer()[:200])
		})},
		{name: "cut with a length", kind: faultLost, misconduct: answering(func(x *incoming) {
			text := x.answer()
			x.head(fmt.Sprintf("Content-Length: %d\r\n", len(text)))
			x.write(text[:200])
		})},
		{name: "whole with a greater length", kind: faultLost, misconduct: answering(func(x *incoming) {
			text := x.answer()
			x.head(fmt.Sprintf("Content-Length: %d\r\n", len(text)+1))
			x.write(text)
		})},
		{name: "cut in the chunks", kind: faultLost, misconduct: answering(func(x *incoming) {
			x.head("Transfer-Encoding: chunked\r\n")
			text := x.answer()
			x.write(fmt.Sprintf("%x\r\n%s\r\n", 200, text[:200]))
		})},
		{name: "whole without the last chunk", kind: faultLost, misconduct: answering(func(x *incoming) {
			x.head("Transfer-Encoding: chunked\r\n")
			text := x.answer()
			x.write(fmt.Sprintf("%x\r\n%s\r\n", len(text), text))
		})},
		{name: "no chunk", kind: faultLost, misconduct: answering(func(x *incoming) {
			x.head("Transfer-Encoding: chunked\r\n")
			x.write(x.secretsOf() + "\r\n")
		})},

		{name: "long with a length", kind: faultBad, says: "longer than", misconduct: answering(func(x *incoming) {
			start := padding(x.faultCommand)
			x.head(fmt.Sprintf("Content-Length: %d\r\n", len(start)+bombSize))
			x.write(start)
			x.pour("x", bombSize)
		})},
		{name: "chunks without end", kind: faultBad, says: "longer than", misconduct: answering(func(x *incoming) {
			x.head("Transfer-Encoding: chunked\r\n")
			start := padding(x.faultCommand)
			x.write(fmt.Sprintf("%x\r\n%s\r\n", len(start), start))
			x.pour("10\r\n0123456789ABCDEF\r\n", 0)
		})},
		{name: "blanks without end before the envelope", kind: faultBad, says: "longer than", misconduct: answering(func(x *incoming) {
			x.head("")
			x.pour(" ", 0)
		})},
		{name: "blanks without end after the envelope", kind: faultBad, says: "longer than", misconduct: answering(func(x *incoming) {
			x.head("")
			x.write(x.answer())
			x.pour(" ", 0)
		})},
		{name: "compressed bomb", kind: faultBad, misconduct: answering(func(x *incoming) {
			x.head("Content-Encoding: gzip\r\n")
			x.write(bomb())
		})},
		{name: "deep", kind: faultBad, says: "nested deeper", misconduct: with(func(x *incoming) string {
			return padding(x.faultCommand) + strings.Repeat("<a>", 100_000) + strings.Repeat("</a>", 100_000)
		})},
		{name: "many elements", kind: faultBad, says: "elements", misconduct: with(func(x *incoming) string {
			return padding(x.faultCommand) + strings.Repeat("<a/>", 100_000)
		})},
		{name: "many attributes", kind: faultBad, says: "tag or text longer", misconduct: with(func(x *incoming) string {
			return padding(x.faultCommand) + "<a" + strings.Repeat(` b=""`, 100_000) + "/>"
		})},
		{name: "entity bomb", kind: faultBad, says: "document type", misconduct: with(func(x *incoming) string {
			var entities strings.Builder
			entities.WriteString(`<!ENTITY l0 "lol">`)
			for i := range 30 {
				fmt.Fprintf(&entities, `<!ENTITY l%d "%s">`, i+1, strings.Repeat(fmt.Sprintf("&l%d;", i), 10))
			}
			return `<?xml version="1.0"?><!DOCTYPE a [` + entities.String() + `]>` + strings.TrimPrefix(padding(x.faultCommand), `<?xml version="1.0" encoding="UTF-8"?>`) + "&l30;"
		})},
		{name: "external entity", kind: faultBad, says: "document type", misconduct: with(func(x *incoming) string {
			return `<?xml version="1.0"?><!DOCTYPE a SYSTEM "http://` + forbidden + `/dtd" [<!ENTITY % e SYSTEM "http://` + forbidden + `/e"> %e; <!ENTITY f SYSTEM "http://` +
				forbidden + `/f">]><a>&f;</a>`
		})},
		{name: "undeclared entity", kind: faultBad, says: "malformed XML", misconduct: with(func(x *incoming) string { return padding(x.faultCommand) + "&f;" })},

		{name: "HTML", kind: faultBad, says: "media type", misconduct: answering(func(x *incoming) {
			x.respond(http.StatusOK, "text/html", "<html>"+x.request+"</html>")
		})},
		{name: "no media type", kind: faultBad, says: "media type", misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + x.answer())
		})},
		{name: "character set in the header", kind: faultBad, says: "character set", misconduct: answering(func(x *incoming) {
			x.respond(http.StatusOK, "text/xml; charset=iso-8859-1", x.answer())
		})},
		{name: "character set in the document", kind: faultBad, says: "UTF-8", misconduct: with(func(x *incoming) string {
			return strings.Replace(x.answer(), "UTF-8", "ISO-8859-1", 1)
		})},
		{name: "empty", kind: faultBad, says: "empty document", misconduct: with(func(*incoming) string { return "" })},
		{name: "empty envelope", kind: faultBad, says: "empty body", misconduct: with(func(*incoming) string { return envelopeStart + envelopeEnd })},
		{name: "echo", kind: faultBad, misconduct: with(func(x *incoming) string { return x.request })},
		{name: "answer of another operation", kind: faultBad, says: "another operation", misconduct: with(func(x *incoming) string {
			return strings.ReplaceAll(x.answer(), x.element, "logonResponse")
		})},
		{name: "success without codes", kind: faultBad, says: "resultCodes", misconduct: with(func(x *incoming) string {
			return strings.Replace(x.answer(), soapSuccess, "", 1)
		})},

		{name: "refusal", kind: faultRefusal, status: "STAT_USER_UNKNOWN", code: 4711, misconduct: with(func(x *incoming) string {
			return x.refusal("STAT_USER_UNKNOWN", 4711, x.secretsOf())
		})},
		{name: "invalid credentials", kind: faultRefusal, status: "STAT_INVCREDENTIALS", code: 1000, misconduct: with(func(x *incoming) string {
			return x.refusal("STAT_INVCREDENTIALS", 1000, x.secretsOf())
		})},
		{name: "unspecified error", kind: faultRefusal, status: "STAT_ERROR", code: -1, misconduct: with(func(x *incoming) string {
			return x.refusal("STAT_ERROR", -1, x.secretsOf())
		})},
	}
	for code, failure := range map[string]string{
		"RET_SUCCESS": "RET_FAILURE", "STAT_SUCCESS": "STAT_NEW", "<returnCode>0": "<returnCode>-1", "<statusCode>0": "<statusCode>1007",
	} {
		rows = append(rows, fault{name: "success but for " + code, kind: faultBad, says: "resultCodes contradict", misconduct: with(func(x *incoming) string {
			return strings.Replace(x.answer(), code, failure, 1)
		})})
	}
	for _, status := range []string{"301", "302", "303", "307", "308"} {
		rows = append(rows, fault{name: "status " + status, kind: faultBad, says: "HTTP status " + status, misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 " + status + " Elsewhere\r\nLocation: https://" + forbidden + "/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})})
	}
	for status, code := range map[string]int{"STAT_COMMS": -10, "STAT_MEMORY": -3, "STAT_OS_FAILURE": -12, "STAT_LICENCE": -11} {
		rows = append(rows, fault{name: status, kind: faultCoded, status: status, code: code, misconduct: with(func(x *incoming) string {
			return x.refusal(status, code, x.secretsOf())
		})})
	}
	return rows
}

// slowFaults have the calls wait for their timeout.
func slowFaults() []fault {
	return []fault{
		{name: "no handshake", kind: faultUnsent, misconduct: misconduct{connect: func(_ net.Conn, over context.Context) { <-over.Done() }}},
		{name: "nothing is read", kind: faultLate, unread: true, misconduct: misconduct{shaken: func(_ *tls.Conn, over context.Context) { <-over.Done() }}},
		{name: "no answer", kind: faultLate, misconduct: answering((*incoming).hang)},
		{name: "status 103 dripping", kind: faultLate, misconduct: answering(func(x *incoming) { x.drip("HTTP/1.1 103 Early Hints\r\n\r\n") })},
		{name: "header dripping", kind: faultLate, misconduct: answering(func(x *incoming) {
			x.write("HTTP/1.1 200 OK\r\n")
			x.drip("X: y\r\n")
		})},
		{name: "answer dripping", kind: faultLate, misconduct: answering(func(x *incoming) {
			x.head("")
			x.drip(x.answer())
		})},
		{name: "answer dripping in chunks", kind: faultLate, misconduct: answering(func(x *incoming) {
			x.head("Transfer-Encoding: chunked\r\n")
			x.drip("1\r\n \r\n")
		})},
		{name: "half an answer", kind: faultLate, misconduct: answering(func(x *incoming) {
			x.head("Content-Length: 1000\r\n")
			x.write(x.answer()[:200])
			x.hang()
		})},
		{name: "answer without end", kind: faultLate, misconduct: answering(func(x *incoming) {
			x.head("")
			x.write(x.answer())
			x.hang()
		})},
	}
}

// faultTable runs rows of the table against a gateway.
type faultTable struct {
	*gateway
	ledger  *ledger
	primary *faulty
	backup  *faulty // may be nil
	timeout time.Duration

	secrets atomic.Int64
	slowest time.Duration
	ran     int
}

// secret is a text that is found nowhere else: hex digits, but too few for a
// wrapped key.
func (f *faultTable) secret() string {
	return fmt.Sprintf("5EC2E7%06X%012X", os.Getpid()&0xffffff, f.secrets.Add(1))
}

// faultReply is what a client got, and when.
type faultReply struct {
	status int
	header http.Header
	body   string
	took   time.Duration
}

// send makes a call of a command.
func (g *gateway) send(ctx context.Context, c *faultCommand, value string) (faultReply, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+c.path, strings.NewReader(c.body(value)))
	if err != nil {
		return faultReply{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(c.key, "")
	start := time.Now()
	var got faultReply
	got.status, got.header, got.body, err = g.Do(r)
	got.took = time.Since(start)
	return got, err
}

// Run runs one row, with all commands at the same time.
func (f *faultTable) Run(t *testing.T, row fault) {
	t.Helper()
	f.primary.Misbehave(t, row.misconduct)
	if f.backup != nil {
		f.backup.Misbehave(t, misconduct{})
	}
	logged := len(f.Logs.String())
	var mu sync.Mutex
	var wg sync.WaitGroup
	var secrets []string
	problem := func(c *faultCommand, format string, arguments ...any) {
		mu.Lock()
		defer mu.Unlock()
		assert.Fail(t, row.name+", "+c.operation+": "+fmt.Sprintf(format, arguments...))
	}
	for _, c := range faultCommands {
		secret := f.secret()
		secrets = append(secrets, secret)
		wg.Go(func() {
			f.ledger.Sent()
			got, err := f.send(t.Context(), c, secret)
			if err != nil {
				f.ledger.Lost("%s, %s: %v", row.name, c.operation, err)
				return
			}
			var deviations []string
			for _, want := range row.outcomes(c, f.backup != nil) {
				deviation := f.compare(want, row, c, got)
				if deviation == "" {
					if got.status == http.StatusServiceUnavailable {
						f.ledger.Refused()
					} else {
						f.ledger.Answered()
					}
					mu.Lock()
					f.slowest = max(f.slowest, got.took)
					mu.Unlock()
					return
				}
				deviations = append(deviations, deviation)
			}
			f.ledger.Wrong("%s, %s: %s", row.name, c.operation, strings.Join(deviations, "; or "))
		})
	}
	wg.Wait()
	// The log comes through a pipe.
	written, cancel := context.WithTimeout(t.Context(), faultGrace)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, c := range faultCommands {
		ok := row.kind == faultEarly || row.kind == faultNone
		var said string
		for !ok {
			if said, ok = f.said(f.Logs.String()[logged:], row, c); ok {
				break
			}
			select {
			case <-tick.C:
				continue
			case <-written.Done():
			}
			break
		}
		if !ok {
			problem(c, "the log says: %s", said)
		}
	}
	all := f.Logs.String()[logged:]
	for _, secret := range secrets {
		if i := strings.Index(all, secret); i >= 0 {
			assert.Fail(t, row.name+": the log has a value of a command", "%s", all[max(0, i-300):min(len(all), i+100)])
		}
	}
	f.ran++
}

// compare tells how an answer and what the servers got differ from an outcome.
func (f *faultTable) compare(want faultOutcome, row fault, c *faultCommand, got faultReply) string {
	var deviations []string
	deviate := func(format string, arguments ...any) {
		deviations = append(deviations, fmt.Sprintf(format, arguments...))
	}
	codes := fmt.Sprintf(`"statusCodeEnum":%q,`, want.statusEnum)
	number := fmt.Sprintf(`"statusCode":%d}`, want.code)
	if got.status != want.status || !strings.Contains(got.body, codes) || !strings.Contains(got.body, number) {
		deviate("status %d and %s, want %d and %s (%d)", got.status, got.body, want.status, want.statusEnum, want.code)
	}
	if result := strings.Contains(got.body, `"result":`); result && want.statusEnum != "STAT_SUCCESS" {
		deviate("a result in %s", got.body)
	}
	retryAfter, err := strconv.Atoi(got.header.Get("Retry-After"))
	if want.status == http.StatusServiceUnavailable {
		if err != nil || retryAfter < 1 {
			deviate("Retry-After %q", got.header.Get("Retry-After"))
		}
	} else if got.header.Get("Retry-After") != "" {
		deviate("Retry-After %q", got.header.Get("Retry-After"))
	}
	if n := f.primary.Arrived(c.operation); n != want.primary {
		deviate("%d commands at the first instance, want %d", n, want.primary)
	}
	if f.backup != nil {
		if n := f.backup.Arrived(c.operation); n != want.backup {
			deviate("%d commands at the second instance, want %d", n, want.backup)
		}
	}
	most := faultLongest
	if f.timeout == slowTimeout {
		most = f.timeout + faultGrace
		if row.kind == faultLate && got.took < f.timeout {
			deviate("an answer after %s", got.took)
		}
	}
	if got.took > most {
		deviate("%s until the answer", got.took)
	}
	return strings.Join(deviations, ", ")
}

// said looks for what the log has to say about a command: the instance and what
// went wrong. Otherwise it gives what there is.
func (f *faultTable) said(log string, row fault, c *faultCommand) (string, bool) {
	var found []string
	for line := range strings.Lines(log) {
		var record struct{ Msg, Operation, Instance, Error, Status string }
		if json.Unmarshal([]byte(line), &record) != nil || record.Msg != "authentication server called" ||
			record.Operation != c.operation || record.Instance != "primary" {
			continue
		}
		if strings.Contains(record.Error, faultReasons[row.kind]) && strings.Contains(record.Error, row.says) && record.Status == row.status {
			return "", true
		}
		found = append(found, record.Error+record.Status)
	}
	return strings.Join(found, "; "), false
}

// startOnFaulty starts a gateway without probes in front of servers. Its log has
// all that is to be known about them.
func startOnFaulty(t *testing.T, certs sandbox.Certificates, options object, addresses ...string) *gateway {
	t.Helper()
	g := configure(t, certs, addresses[0], func(dsapp object) {
		withOtherApplication(dsapp)
		servers := dsapp["authentication_servers"].(object)
		servers["probe_interval"] = 0
		maps.Copy(servers, options)
		for _, address := range addresses[1:] {
			servers["instances"] = append(servers["instances"].([]object), object{"name": "backup", "url": address})
		}
	})
	delete(g.Config["apps"].(object)["http"].(object)["servers"].(object)["gateway"].(object), "logs")
	g.Start(t)
	return g
}

// Whatever an authentication server does to a command, its client gets the
// documented answer in time, no server gets the command more often than is
// harmless, and nothing of it is left behind: no memory, no goroutine, no
// descriptor, and no value in the log.
func TestSoakFaults(t *testing.T) {
	t.Parallel()
	for _, instances := range []string{"one instance", "two instances"} {
		for _, speed := range []string{"fast", "slow"} {
			t.Run(instances+" "+speed, func(t *testing.T) {
				t.Parallel()
				testFaults(t, instances == "two instances", speed == "slow")
			})
		}
	}
}

func testFaults(t *testing.T, two, slow bool) {
	l := newLedger(t, strings.TrimPrefix(t.Name(), "TestSoak"))
	certs := certificates(t)
	server := startOAS(t, certs)
	f := &faultTable{ledger: l, timeout: 30 * time.Second}
	if slow {
		f.timeout = slowTimeout
	}
	f.primary = startFaulty(t, certs, server)
	if two {
		f.backup = startFaulty(t, certs, nil)
	}
	addresses := []string{f.primary.URL}
	if two {
		addresses = append(addresses, f.backup.URL)
	}
	f.gateway = startOnFaulty(t, certs, object{"timeout": f.timeout.String(), "breaker": object{"failures": 1000}}, addresses...)

	forbidden, contacts := trapConnections(t)
	var connections, answers []fault
	if slow {
		answers = slowFaults()
		connections, answers = answers[:2], answers[2:]
	} else {
		connections, answers = connectionFaults(t, f.primary, certs), answerFaults(forbidden)
		bomb() // takes a while
	}
	right := fault{name: "no fault"}
	for range 5 {
		f.Run(t, right)
	}
	f.ran, f.slowest = 0, 0
	l.Watch(t, f.gateway)
	before, err := f.usage()
	require.NoError(t, err)

	// What happens to connections would happen to those of a load, too.
	for _, row := range connections {
		f.Run(t, row)
	}
	f.Run(t, right)
	var load *load
	if *soak != "" && !slow {
		load = startLoad(t, l, loadOptions{Gateways: []*gateway{f.gateway}, Server: server})
	}
	for range length(1, 3) {
		for _, row := range answers {
			f.Run(t, row)
		}
	}
	if load != nil {
		load.Stop()
	}
	f.Run(t, right)

	assert.Zero(t, contacts.Load(), "an address was contacted that only an answer named")
	after, err := f.usage()
	require.NoError(t, err)
	// A load has a peak of its own.
	if load == nil {
		assert.Less(t, after.Peak-before.Peak, maxGrowth, "KiB")
	}
	t.Logf("%d rows of %d commands, slowest answer %s, peak memory %d KiB, was %d KiB", f.ran, len(faultCommands),
		f.slowest.Round(time.Millisecond), after.Peak, before.Peak)
}

// serverPatience is how long an authentication server waits for a whole request.
const serverPatience = 5 * time.Second

// A client that takes its time is the gateway's business: the authentication
// server, which waits only for seconds, gets connections for whole commands.
func TestSlowCaller(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	primary := startFaulty(t, certs, nil)
	g := startOnFaulty(t, certs, nil, primary.URL)
	took := make(chan time.Duration, 1)
	primary.Misbehave(t, misconduct{answer: func(x *incoming) {
		took <- x.took
		x.respond(http.StatusOK, xmlType, x.answer())
	}})

	config := g.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	c, err := new(tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL, "https://"))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(deadline)))
	body := registering.body("5EC2E7")
	_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		registering.path, basic(backEndKey+":"), len(body))
	require.NoError(t, err)
	tick := time.NewTicker(15 * time.Millisecond)
	defer tick.Stop()
	for i := range len(body) {
		<-tick.C
		assert.Zero(t, primary.connections.Load(), "connections after %d of %d bytes", i, len(body))
		_, err := io.WriteString(c, body[i:i+1])
		require.NoError(t, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	expectation{http.StatusOK, "STAT_SUCCESS", 0}.check(t, resp.StatusCode, string(answer))
	assert.EqualValues(t, 1, primary.connections.Load())
	assert.Less(t, <-took, serverPatience)
}

const (
	breakerOpened = `"circuit breaker of instance opened"`
	breakerClosed = `"circuit breaker of instance closed"`
)

// answering is a misconduct that concerns answers only.
func answering(answer func(x *incoming)) misconduct { return misconduct{answer: answer} }

// statusOf makes a call and gives its status.
func (g *gateway) statusOf(t *testing.T, c *faultCommand) int {
	t.Helper()
	got, err := g.send(t.Context(), c, "5EC2E7")
	require.NoError(t, err)
	return got.status
}

// refusesAtOnce makes calls that get no further than to the gateway.
func (g *gateway) refusesAtOnce(t *testing.T, c *faultCommand, servers ...*faulty) {
	t.Helper()
	for _, server := range servers {
		before := server.connections.Load()
		defer func() {
			t.Helper()
			assert.Equal(t, before, server.connections.Load(), "nothing arrives")
		}()
	}
	for range 3 {
		got, err := g.send(t.Context(), c, "5EC2E7")
		require.NoError(t, err)
		expectation{http.StatusServiceUnavailable, "STAT_COMMS", -10}.check(t, got.status, got.body)
		seconds, err := strconv.Atoi(got.header.Get("Retry-After"))
		require.NoError(t, err)
		assert.Positive(t, seconds)
		assert.Less(t, got.took, faultGrace)
	}
}

// Five faults in a row open the breaker of an instance: what follows is refused
// without a connection. Neither a reload nor another configuration of the instance
// changes that.
func TestBreakerOpens(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	primary := startFaulty(t, certs, nil)
	g := startOnFaulty(t, certs, object{"breaker": object{"cooldown": "10m"}}, primary.URL)
	primary.Misbehave(t, answering((*incoming).reset))
	for range 4 {
		require.Equal(t, http.StatusBadGateway, g.statusOf(t, &registering))
	}
	// One answer, and the count begins anew.
	primary.Misbehave(t, misconduct{})
	require.Equal(t, http.StatusOK, g.statusOf(t, &registering))
	primary.Misbehave(t, answering((*incoming).reset))
	for range 5 {
		require.Equal(t, http.StatusBadGateway, g.statusOf(t, &registering))
	}
	assert.Equal(t, 5, primary.Arrived(registering.operation))
	primary.Misbehave(t, misconduct{})
	for _, c := range faultCommands {
		g.refusesAtOnce(t, c, primary)
	}
	g.Load(t)
	g.refusesAtOnce(t, &registering, primary)
	servers := g.Config["apps"].(object)["dsapp"].(object)["authentication_servers"].(object)
	servers["timeout"] = "7s"
	servers["instances"].([]object)[0]["name"] = "renamed"
	g.Load(t)
	g.refusesAtOnce(t, &notifying, primary)
	poll(t, "the log to tell", func() bool { return strings.Contains(g.Logs.String(), breakerOpened) })
	assert.Equal(t, 1, strings.Count(g.Logs.String(), breakerOpened))
	assert.Zero(t, strings.Count(g.Logs.String(), breakerClosed))
}

// What counts for the breaker and what does not.
func TestBreakerCounts(t *testing.T) {
	t.Parallel()
	const failures = 3
	certs := certificates(t)
	primary := startFaulty(t, certs, nil)
	g := startOnFaulty(t, certs, object{"timeout": "1s", "breaker": object{"failures": failures, "cooldown": "100ms"}}, primary.URL)
	refusal := func(status string, code int) misconduct {
		return answering(func(x *incoming) { x.respond(http.StatusOK, xmlType, x.refusal(status, code, "")) })
	}
	for _, tc := range []struct {
		name    string
		conduct misconduct
		command *faultCommand
		status  int
		counts  bool
	}{
		{"refused", misconduct{refuse: true}, &registering, http.StatusServiceUnavailable, true},
		{"closed in the handshake", misconduct{connect: func(net.Conn, context.Context) {}}, &registering, http.StatusServiceUnavailable, true},
		{"reset", answering((*incoming).reset), &authenticating, http.StatusBadGateway, true},
		{"no answer", answering((*incoming).hang), &registering, http.StatusGatewayTimeout, true},
		{"HTTP error", answering(func(x *incoming) { x.respond(http.StatusInternalServerError, "text/plain", "no") }), &registering, http.StatusBadGateway, true},
		{"nonsense", answering(func(x *incoming) { x.respond(http.StatusOK, xmlType, "<no/>") }), &registering, http.StatusBadGateway, true},
		{"Fault Server", answering(soapFault("1.1", 500, "Server")), &registering, http.StatusBadGateway, true},
		{"STAT_COMMS", refusal("STAT_COMMS", -10), &registering, http.StatusOK, true},
		{"STAT_LICENCE", refusal("STAT_LICENCE", -11), &notifying, http.StatusOK, true},
		{"refusal", refusal("STAT_INVCREDENTIALS", 1000), &authenticating, http.StatusOK, false},
		{"unspecified error", refusal("STAT_ERROR", -1), &registering, http.StatusOK, false},
		{"not found", refusal("STAT_NOT_FOUND", -13), &retrieving, http.StatusOK, false},
		{"Fault Client", answering(soapFault("1.1", 500, "Client")), &registering, http.StatusBadGateway, false},
		{"no answer to a login, nor to anything else", answering((*incoming).hang), &authenticating, http.StatusGatewayTimeout, true},
	} {
		opened, closed := strings.Count(g.Logs.String(), breakerOpened), strings.Count(g.Logs.String(), breakerClosed)
		primary.Misbehave(t, tc.conduct)
		for range failures {
			require.Equal(t, tc.status, g.statusOf(t, tc.command), tc.name)
		}
		if !tc.counts {
			require.Equal(t, tc.status, g.statusOf(t, tc.command), tc.name)
			assert.Equal(t, failures+1, primary.Arrived(tc.command.operation), tc.name)
			primary.Misbehave(t, misconduct{})
			assert.Equal(t, http.StatusOK, g.statusOf(t, tc.command), tc.name)
			assert.Equal(t, opened, strings.Count(g.Logs.String(), breakerOpened), tc.name)
			continue
		}
		poll(t, tc.name+": breaker to open", func() bool { return strings.Count(g.Logs.String(), breakerOpened) == opened+1 })
		primary.Misbehave(t, misconduct{})
		poll(t, tc.name+": breaker to close", func() bool { return g.statusOf(t, tc.command) == http.StatusOK })
		poll(t, tc.name+": log", func() bool { return strings.Count(g.Logs.String(), breakerClosed) == closed+1 })
	}
}

// blackHole is an address that no connection reaches, although somebody listens:
// the queue of the listener is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	bound, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*syscall.SockaddrInet4).Port))
	for range 100 {
		c, err := (&net.Dialer{Timeout: 300 * time.Millisecond}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return "https://" + address + "/"
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	require.Fail(t, "the queue takes everything")
	return ""
}

// With a second instance, an open breaker costs nothing: neither an answer nor
// the time that it takes to find out that there is no connection.
func TestBreakerTakeover(t *testing.T) {
	t.Parallel()
	const failures = 2
	certs := certificates(t)
	t.Run("black hole", func(t *testing.T) {
		t.Parallel()
		const dialTimeout = time.Second
		backup := startFaulty(t, certs, nil)
		g := startOnFaulty(t, certs, object{
			"dial_timeout": dialTimeout.String(), "breaker": object{"failures": failures, "cooldown": "10m"},
		}, blackHole(t), backup.URL)
		var slowest time.Duration
		for i := range failures + 20 {
			got, err := g.send(t.Context(), &registering, "5EC2E7")
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, got.status, got.body)
			if i < failures {
				assert.GreaterOrEqual(t, got.took, dialTimeout)
				continue
			}
			slowest = max(slowest, got.took)
		}
		assert.Less(t, slowest, dialTimeout)
		t.Logf("slowest of 20 calls with an open breaker: %s", slowest)
	})
	t.Run("faults", func(t *testing.T) {
		t.Parallel()
		primary, backup := startFaulty(t, certs, nil), startFaulty(t, certs, nil)
		g := startOnFaulty(t, certs, object{"breaker": object{"failures": failures, "cooldown": "10m"}}, primary.URL, backup.URL)
		primary.Misbehave(t, answering((*incoming).reset))
		for range failures {
			require.Equal(t, http.StatusBadGateway, g.statusOf(t, &registering))
		}
		connections := primary.connections.Load()
		for _, c := range faultCommands {
			assert.Equal(t, http.StatusOK, g.statusOf(t, c))
			assert.Equal(t, 1, backup.Arrived(c.operation))
		}
		assert.Equal(t, connections, primary.connections.Load())
	})
}

// After the cooldown one command tries, however many there are, and its success
// lets all the others through.
func TestBreakerTrial(t *testing.T) {
	t.Parallel()
	const callers = 8
	certs := certificates(t)
	primary := startFaulty(t, certs, nil)
	g := startOnFaulty(t, certs, object{"breaker": object{"failures": 1, "cooldown": "3s"}, "timeout": "30s"}, primary.URL)
	primary.Misbehave(t, answering((*incoming).reset))
	require.Equal(t, http.StatusBadGateway, g.statusOf(t, &registering))

	release := make(chan struct{})
	primary.Misbehave(t, answering(func(x *incoming) {
		select {
		case <-release:
			x.respond(http.StatusOK, xmlType, x.answer())
		case <-x.over.Done():
		}
	}))
	ended := make(chan int, callers)
	for range callers {
		go func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				status, _, err := g.try(t.Context(), registering.path, registering.key, registering.body("5EC2E7"))
				if err != nil || status != http.StatusServiceUnavailable || primary.Arrived(registering.operation) > 0 {
					ended <- status
					return
				}
				<-tick.C
			}
		}()
	}
	for range callers - 1 {
		assert.Equal(t, http.StatusServiceUnavailable, <-ended)
	}
	assert.Equal(t, 1, primary.Arrived(registering.operation), "one command tries")
	close(release)
	assert.Equal(t, http.StatusOK, <-ended)
	for range callers {
		go func() {
			status, _, _ := g.try(t.Context(), registering.path, registering.key, registering.body("5EC2E7"))
			ended <- status
		}()
	}
	for range callers {
		assert.Equal(t, http.StatusOK, <-ended)
	}
	assert.Equal(t, 1+callers, primary.Arrived(registering.operation))
}

// Probes find out without any command that a server is gone, and that it is back:
// no command pays for either.
func TestBreakerProbe(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	primary, backup := startFaulty(t, certs, nil), startFaulty(t, certs, nil)
	g := startOnFaulty(t, certs, object{"probe_interval": "50ms", "breaker": object{"failures": 1000, "cooldown": "200ms"}}, primary.URL, backup.URL)
	for i := 1; i <= 3; i++ {
		primary.Misbehave(t, misconduct{refuse: true})
		backup.Misbehave(t, misconduct{})
		poll(t, "breaker to open", func() bool { return strings.Count(g.Logs.String(), breakerOpened) == i })
		require.Equal(t, http.StatusOK, g.statusOf(t, &registering))
		assert.Equal(t, 1, backup.Arrived(registering.operation))
		primary.Misbehave(t, misconduct{})
		poll(t, "server to be reached", func() bool { return strings.Count(g.Logs.String(), `"instance reached again"`) == i })
		require.Equal(t, http.StatusOK, g.statusOf(t, &registering))
		assert.Equal(t, 1, primary.Arrived(registering.operation), "the first command after the return")
		poll(t, "breaker to close", func() bool { return strings.Count(g.Logs.String(), breakerClosed) == i })
	}
	// Probes are no commands, and leave no connection behind.
	before := primary.connections.Load()
	poll(t, "probes", func() bool { return primary.connections.Load() > before+3 })
	assert.Equal(t, 1, primary.Arrived(registering.operation))
}

// A server that is busy is not out of order: commands for which there is no place
// in the queue are refused at once, and the others are answered.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	const callers = 6
	certs := certificates(t)
	primary := startFaulty(t, certs, nil)
	g := startOnFaulty(t, certs, object{"max_connections": 1, "max_queue": 1, "breaker": object{"failures": 1, "cooldown": "10m"}, "timeout": "30s"}, primary.URL)
	release := make(chan struct{})
	primary.Misbehave(t, answering(func(x *incoming) {
		select {
		case <-release:
			x.respond(http.StatusOK, xmlType, x.answer())
		case <-x.over.Done():
		}
	}))
	replies := make(chan faultReply, callers)
	for range callers {
		go func() {
			got, err := g.send(t.Context(), &registering, "5EC2E7")
			assert.NoError(t, err)
			replies <- got
		}()
	}
	for range callers - 2 {
		got := <-replies
		assert.Equal(t, http.StatusServiceUnavailable, got.status)
		assert.NotEmpty(t, got.header.Get("Retry-After"))
		assert.Less(t, got.took, faultGrace)
	}
	close(release)
	for range 2 {
		assert.Equal(t, http.StatusOK, (<-replies).status)
	}
	assert.Equal(t, http.StatusOK, g.statusOf(t, &registering))
	assert.Equal(t, 3, primary.Arrived(registering.operation))
	assert.NotContains(t, g.Logs.String(), breakerOpened)
}

// What belongs to an instance is not sent elsewhere because its breaker is open,
// and nothing is used up by that.
func TestBreakerAffinity(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	primary, backup := startFaulty(t, certs, nil), startFaulty(t, certs, nil)
	g := startOnFaulty(t, certs, object{"breaker": object{"failures": 1, "cooldown": "1s"}}, primary.URL, backup.URL)
	got, err := g.send(t.Context(), &registering, "5EC2E7")
	require.NoError(t, err)
	var registered struct{ Result registration }
	require.NoError(t, json.Unmarshal([]byte(got.body), &registered))
	require.NotEmpty(t, registered.Result.Identifier, got.body)
	add := func() faultReply {
		got, err := g.send(t.Context(), &addingDevice, registered.Result.Identifier)
		require.NoError(t, err)
		return got
	}

	primary.Misbehave(t, answering((*incoming).reset))
	require.Equal(t, http.StatusBadGateway, g.statusOf(t, &registering))
	got = add()
	expectation{http.StatusServiceUnavailable, "STAT_COMMS", -10}.check(t, got.status, got.body)
	assert.NotEmpty(t, got.header.Get("Retry-After"))
	primary.Misbehave(t, misconduct{})
	poll(t, "the device to be added", func() bool {
		got = add()
		return got.status != http.StatusServiceUnavailable
	})
	expectation{http.StatusOK, "STAT_SUCCESS", 0}.check(t, got.status, got.body)
	assert.Equal(t, 1, primary.Arrived(addingDevice.operation))
	assert.Zero(t, backup.connections.Load())
}
