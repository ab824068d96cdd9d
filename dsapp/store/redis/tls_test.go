package redis_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/relay"
)

// certificate is a self-signed certificate for the loopback address.
type certificate struct {
	certPath, keyPath string
	pair              tls.Certificate
	pool              *x509.CertPool
}

func newCertificate(t *testing.T) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	c := certificate{certPath: filepath.Join(folder, "cert.pem"), keyPath: filepath.Join(folder, "key.pem"), pool: x509.NewCertPool()}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for path, content := range map[string][]byte{c.certPath: certPEM, c.keyPath: keyPEM} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c.pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	c.pool.AppendCertsFromPEM(certPEM)
	return c
}

// config returns the configuration of a client that accepts c and presents it.
func (c certificate) config() *tls.Config {
	return &tls.Config{RootCAs: c.pool, Certificates: []tls.Certificate{c.pair}, MinVersion: tls.VersionTLS12}
}

// terminate accepts TLS connections for a server without TLS and returns the address to
// connect to.
func (c certificate) terminate(t *testing.T, server string) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{c.pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	return relay.StartOn(t, l, server).Addr()
}

// With TLS and a user who has only the documented permissions, everything works. A certificate
// of an unknown authority, another name and a wrong password are refused.
func TestTLSAndUser(t *testing.T) {
	t.Parallel()
	c := newCertificate(t)
	server, address := redistest.StartTLS(t, c.certPath, c.keyPath, c.certPath)
	server.Command(t, append([]string{"ACL", "SETUSER", "gateway", "on", ">gateway-password", "~dsapp:*", "-@all"}, permissions...)...)
	server.Command(t, "ACL", "SETUSER", "default", "off")

	settings := redis.Settings{
		Addresses: []string{address}, Username: "gateway", Password: "gateway-password", TLS: c.config(),
	}
	s := redis.New(newClient(t, settings), redis.Options{})
	for _, call := range calls(s, "id-1") {
		s.ExpireWrites()
		if err := call.call(t.Context()); err != nil {
			t.Errorf("%s: %v", call.name, err)
		}
	}
	// There is no replica, so WAIT takes its whole time. It is permitted.
	settings.Timeout = 2 * time.Second
	s = redis.New(newClient(t, settings), redis.Options{WaitReplicas: 1})
	if err := reserve(t.Context(), s); err == nil || !strings.Contains(err.Error(), "too few replicas") {
		t.Errorf("waiting for replicas: error %v", err)
	}

	for name, tt := range map[string]struct {
		change func(*redis.Settings)
		want   string
	}{
		"wrong password":    {func(s *redis.Settings) { s.Password = "SECRET" }, "WRONGPASS"},
		"no password":       {func(s *redis.Settings) { s.Username, s.Password = "", "" }, "NOAUTH"},
		"unknown authority": {func(s *redis.Settings) { s.TLS.RootCAs = x509.NewCertPool() }, "unknown authority"},
		"another name":      {func(s *redis.Settings) { s.TLS.ServerName = "elsewhere" }, "elsewhere"},
		"no certificate":    {func(s *redis.Settings) { s.TLS.Certificates = nil }, ""},
		"no TLS":            {func(s *redis.Settings) { s.TLS = nil }, ""},
	} {
		changed := settings
		changed.TLS = settings.TLS.Clone()
		tt.change(&changed)
		err := reserve(t.Context(), redis.New(newClient(t, changed), redis.Options{}))
		if !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
}

// permissions are the commands that the package comment says every server's user needs.
var permissions = []string{
	"+eval", "+evalsha", "+time", "+wait", "+get", "+set", "+getrange", "+setrange", "+del", "+pexpireat",
	"+hget", "+hmget", "+hset", "+hdel", "+hexists", "+hincrby",
	"+zadd", "+zrange", "+zrem", "+zrevrangebyscore", "+zremrangebyscore", "+zremrangebyrank",
}

// A cluster's user needs two more commands. They suffice also while a slot moves.
func TestClusterUser(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 0)
	for _, master := range c.Masters {
		master.Command(t, append([]string{
			"ACL", "SETUSER", "gateway", "on", ">gateway-password", "~dsapp:*", "-@all", "+cluster|slots", "+asking",
		}, permissions...)...)
	}
	settings := redis.Settings{Addresses: c.Addresses()[:1], Cluster: true, Username: "gateway", Password: "gateway-password"}
	s := redis.New(newClient(t, settings), redis.Options{})
	for _, call := range calls(s, "id-1") {
		s.ExpireWrites()
		if err := call.call(t.Context()); err != nil {
			t.Errorf("%s: %v", call.name, err)
		}
	}
	slot := c.Slot(t, "dsapp:{id-2}:reg")
	to := c.Masters[0]
	if to == c.Master(slot) {
		to = c.Masters[1]
	}
	m := c.Migrate(t, slot, c.Master(slot), to)
	if _, found, err := s.Load(t.Context(), "id-2"); err != nil || found {
		t.Errorf("load from a slot that moves: %v, error %v", found, err)
	}
	m.Finish(t)
	if _, found, err := s.Load(t.Context(), "id-2"); err != nil || found {
		t.Errorf("load from a slot that moved: %v, error %v", found, err)
	}

	settings.Password = "SECRET"
	err := reserve(t.Context(), redis.New(newClient(t, settings), redis.Options{}))
	if !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("wrong password: error %v", err)
	}
}

// Sentinels and servers have different users, and both are reached through TLS.
func TestSentinelTLSAndUser(t *testing.T) {
	t.Parallel()
	c := newCertificate(t)
	sentinel := redistest.StartSentinel(t, 0)
	master := sentinel.Servers[0]
	host, port, _ := strings.Cut(c.terminate(t, master.Addr()), ":")
	master.Command(t, append([]string{"ACL", "SETUSER", "gateway", "on", ">gateway-password", "~dsapp:*", "-@all"}, permissions...)...)
	watcher := sentinel.Sentinels[0]
	watcher.Command(t, "SENTINEL", "REMOVE", redistest.MasterName)
	watcher.Command(t, "SENTINEL", "MONITOR", redistest.MasterName, host, port, "3")
	watcher.Command(t, "ACL", "SETUSER", "asker", "on", ">asker-password", "-@all", "resetchannels",
		"+sentinel|get-master-addr-by-name", "+sentinel|sentinels", "+subscribe", "+ping", "&+switch-master", "&+replica-reconf-done")
	watcher.Command(t, "ACL", "SETUSER", "default", "off")
	settings := redis.Settings{
		Addresses: []string{c.terminate(t, watcher.Addr())}, MasterName: redistest.MasterName, TLS: c.config(),
		Username: "gateway", Password: "gateway-password", SentinelUsername: "asker", SentinelPassword: "asker-password",
	}
	s := redis.New(newClient(t, settings), redis.Options{})
	for _, call := range calls(s, "id-1") {
		if err := call.call(t.Context()); err != nil {
			t.Errorf("%s: %v", call.name, err)
		}
	}
	for name, tt := range map[string]struct {
		change func(*redis.Settings)
		want   string
	}{
		"wrong password of the Sentinel": {func(s *redis.Settings) { s.SentinelPassword = "SECRET" }, "WRONGPASS"},
		"wrong password of the server":   {func(s *redis.Settings) { s.Password = "SECRET" }, "WRONGPASS"},
		"unknown master":                 {func(s *redis.Settings) { s.MasterName = "another" }, "no Sentinel knows the master"},
		"unknown authority":              {func(s *redis.Settings) { s.TLS = &tls.Config{MinVersion: tls.VersionTLS12} }, "unknown authority"},
	} {
		changed := settings
		tt.change(&changed)
		err := reserve(t.Context(), redis.New(newClient(t, changed), redis.Options{}))
		if !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
}
