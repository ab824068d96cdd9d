package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// read returns the content of all files in dir.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(content)
	}
	return files
}

func mustCertificates(t *testing.T, dir string, names ...string) Certificates {
	t.Helper()
	c, err := NewCertificates(dir, names...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A client that trusts only the CA can connect under every name of the certificate and under
// no other.
func TestCertificatesServe(t *testing.T) {
	t.Parallel()
	c := mustCertificates(t, filepath.Join(t.TempDir(), "new"), "oas.example", "192.0.2.7")
	own, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(c.Authority)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatal("no CA certificate")
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{own}}
	server.StartTLS()
	t.Cleanup(server.Close)

	for name, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "::1": true, "oas.example": true, "192.0.2.7": true,
		"other.example": false, "192.0.2.8": false,
	} {
		conn, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{RootCAs: roots, ServerName: name})
		if (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// Keys are P-256 and readable by their owner only, and no temporary file remains.
func TestCertificateFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := mustCertificates(t, dir)
	if files := read(t, dir); len(files) != 4 {
		t.Errorf("%d files", len(files))
	}
	for _, file := range []string{c.Key, filepath.Join(dir, "ca.key")} {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", file, info.Mode(), err)
		}
	}
	p, err := loadPair(c.Certificate, c.Key)
	if err != nil || p == nil || p.key.Curve != elliptic.P256() {
		t.Errorf("server pair %v, %v", p, err)
	}
}

// A valid pair is reused. A missing, broken, mismatched or exposed file is replaced. The CA
// is kept as long as its name constraints allow all names.
func TestCertificatesReused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil              func(t *testing.T, dir string)
		names              []string
		sameCA, sameServer bool
	}{
		"nothing":       {func(*testing.T, string) {}, nil, true, true},
		"leaf lost":     {remove("server.pem"), nil, true, false},
		"leaf key lost": {remove("server.key"), nil, true, false},
		"leaf broken":   {write("server.pem", "x"), nil, true, false},
		"key broken":    {write("server.key", "x"), nil, true, false},
		"key of the CA": {func(t *testing.T, dir string) { write("server.key", read(t, dir)["ca.key"])(t, dir) }, nil, true, false},
		"CA as leaf": {func(t *testing.T, dir string) {
			files := read(t, dir)
			write("server.key", files["ca.key"])(t, dir)
			write("server.pem", files["ca.pem"])(t, dir)
		}, nil, true, false},
		"CA lost":     {remove("ca.pem"), nil, false, false},
		"CA key lost": {remove("ca.key"), nil, false, false},
		"leaf key readable": {func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, "server.key"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, nil, true, false},
		"further name": {func(*testing.T, string) {}, []string{"oas.example"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			mustCertificates(t, dir)
			before := read(t, dir)
			c.spoil(t, dir)
			mustCertificates(t, dir, c.names...)
			after := read(t, dir)
			if (before["ca.pem"] == after["ca.pem"]) != c.sameCA || (before["server.pem"] == after["server.pem"]) != c.sameServer {
				t.Error("wrong file replaced or kept")
			}
			mustCertificates(t, dir, c.names...)
			again := read(t, dir)
			if again["server.pem"] != after["server.pem"] || again["ca.pem"] != after["ca.pem"] {
				t.Error("the new pair is not reused")
			}
		})
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func write(name, content string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A certificate with less than 30 days left is replaced.
func TestCertificatesRenewed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := mustCertificates(t, dir)
	authority, err := loadPair(c.Authority, filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := loadPair(c.Certificate, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	template := *leaf.certificate
	template.NotAfter = time.Now().Add(29 * 24 * time.Hour)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, authority.certificate, &key.PublicKey, authority.key)
	if err != nil {
		t.Fatal(err)
	}
	old, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&pair{old, key}).save(c.Certificate, c.Key); err != nil {
		t.Fatal(err)
	}

	mustCertificates(t, dir)
	renewed, err := loadPair(c.Certificate, c.Key)
	if err != nil || renewed == nil || time.Until(renewed.certificate.NotAfter) < 300*24*time.Hour {
		t.Errorf("valid until %v, %v", renewed.certificate.NotAfter, err)
	}
}

// Errors are returned for a directory that is a file and for a file that cannot be read.
func TestCertificateErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write("file", "")(t, dir)
	if _, err := NewCertificates(filepath.Join(dir, "file")); err == nil {
		t.Error("a file taken as directory")
	}
	if err := os.Mkdir(filepath.Join(dir, "ca.pem"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := NewCertificates(dir); err == nil {
		t.Error("a directory taken as certificate")
	}
}
