package caddymodule

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// What an operator does is audited with the address, with the subject of the certificate of
// a remote identity, and with neither over a socket.
func TestOperatorIsAudited(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	l := &auditLog{logger: zap.New(core)}
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/dsapp/drain", nil)
	r.RemoteAddr = "192.0.2.7:1234"
	l.operator(r, "node_drained")
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Subject: pkix.Name{CommonName: "operator", Organization: []string{"Bank"}}}}}
	l.operator(r, "instance_drained", zap.String("instance", "primary"), zap.String("domain", ""))
	r.RemoteAddr, r.TLS = "@", nil
	l.operator(r, "node_undrained")
	entries := logs.TakeAll()
	require.Len(t, entries, 3)
	assert.Equal(t, map[string]any{"operation": "admin", "client_ip": "192.0.2.7"}, entries[0].ContextMap())
	assert.Equal(t, map[string]any{
		"operation": "admin", "client_ip": "192.0.2.7", "certificate": "CN=operator,O=Bank", "instance": "primary",
	}, entries[1].ContextMap())
	assert.Equal(t, map[string]any{"operation": "admin"}, entries[2].ContextMap())
}

// A registration has one of four states.
func TestRegistrationState(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]activation.State{
		"pending": {Record: activation.Record{Lifetime: time.Minute}},
		"proven":  {Record: activation.Record{Lifetime: time.Minute}, Activations: 1},
		"burned":  {Burned: true},
		"ended":   {Activations: 1},
	} {
		assert.Equal(t, want, registrationState(activation.Inspection{State: s}))
	}
}

// Of the key of a request, at most half and at most 4 characters are shown.
func TestShortened(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{"1": "…", "12345": "12…", "8408980524": "8408…"} {
		assert.Equal(t, want, shortened(key))
	}
}
