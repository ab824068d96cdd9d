package sandbox

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Lifetimes of certificates. One is replaced when less than renewBefore is left.
const (
	authorityLifetime = 5 * 365 * 24 * time.Hour
	leafLifetime      = 365 * 24 * time.Hour
	renewBefore       = 30 * 24 * time.Hour
)

// Certificates names the PEM files that NewCertificates made.
type Certificates struct {
	// Authority is the certificate of the private CA, which clients have to trust.
	Authority string
	// Certificate and Key are what a server presents.
	Certificate string
	Key         string
}

// NewCertificates returns a server certificate for localhost, 127.0.0.1, ::1 and the given
// names (DNS names or IP addresses), issued by a private CA. Both are stored in dir, which
// is created if necessary, and reused while they are valid for another 30 days and cover
// all names. Keys are ECDSA P-256, in files that only their owner can read. Name
// constraints limit the CA to these names, in case it is trusted for other purposes, too.
func NewCertificates(dir string, names ...string) (Certificates, error) {
	names = append([]string{"localhost", "127.0.0.1", "::1"}, names...)
	files := Certificates{
		Authority:   filepath.Join(dir, "ca.pem"),
		Certificate: filepath.Join(dir, "server.pem"),
		Key:         filepath.Join(dir, "server.key"),
	}
	authorityKey := filepath.Join(dir, "ca.key")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Certificates{}, fmt.Errorf("creating the certificate directory: %w", err)
	}

	authority, err := loadPair(files.Authority, authorityKey)
	if err != nil {
		return Certificates{}, err
	}
	leaf, err := loadPair(files.Certificate, files.Key)
	if err != nil {
		return Certificates{}, err
	}
	if leaf.valid(authority, names) {
		return files, nil
	}

	if authority != nil {
		if leaf, err = issue(authority, names); err != nil {
			return Certificates{}, err
		}
	}
	if !leaf.valid(authority, names) { // no usable CA, or one for other names
		if authority, err = issue(nil, names); err != nil {
			return Certificates{}, err
		}
		if err := authority.save(files.Authority, authorityKey); err != nil {
			return Certificates{}, err
		}
		if leaf, err = issue(authority, names); err != nil {
			return Certificates{}, err
		}
	}
	if err := leaf.save(files.Certificate, files.Key); err != nil {
		return Certificates{}, err
	}
	return files, nil
}

// A pair is a certificate with its key.
type pair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// loadPair reads a pair. It returns nil for a missing or unusable one, which is replaced
// then, and an error only for files that cannot be read.
func loadPair(certificateFile, keyFile string) (*pair, error) {
	certificatePEM, err := os.ReadFile(certificateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	// A key that others can read is not secret.
	if info, err := os.Stat(keyFile); err != nil || info.Mode().Perm()&0o077 != 0 {
		return nil, nil
	}

	certificateBlock, _ := pem.Decode(certificatePEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certificateBlock == nil || keyBlock == nil {
		return nil, nil
	}
	certificate, err := x509.ParseCertificate(certificateBlock.Bytes)
	if err != nil {
		return nil, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, nil
	}
	return &pair{certificate, key}, nil
}

// valid reports whether the pair is a server certificate for the names, issued by the
// authority, and both certificates are valid for long enough.
func (p *pair) valid(authority *pair, names []string) bool {
	if p == nil || authority == nil {
		return false
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.certificate)
	for _, name := range names {
		_, err := p.certificate.Verify(x509.VerifyOptions{
			DNSName:     name,
			Roots:       roots,
			CurrentTime: time.Now().Add(renewBefore),
		})
		if err != nil {
			return false
		}
	}
	return !bytes.Equal(p.certificate.Raw, authority.certificate.Raw)
}

// issue returns a new server certificate for the names or, if authority is nil, a new CA
// that is limited to them.
func issue(authority *pair, names []string) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		NotBefore:             now.Add(-time.Minute),
		BasicConstraintsValid: true,
	}
	signer, parent := key, template
	if authority == nil {
		template.Subject = pkix.Name{CommonName: "DSAPP sandbox CA " + now.UTC().Format("2006-01-02 15:04:05")}
		template.NotAfter = now.Add(authorityLifetime)
		template.IsCA = true
		template.MaxPathLenZero = true
		template.KeyUsage = x509.KeyUsageCertSign
		template.PermittedDNSDomainsCritical = true
	} else {
		template.Subject = pkix.Name{CommonName: "DSAPP sandbox"}
		template.NotAfter = now.Add(leafLifetime)
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		signer, parent = authority.key, authority.certificate
	}
	for _, name := range names {
		ip := net.ParseIP(name)
		if ip4 := ip.To4(); ip4 != nil {
			ip = ip4
		}
		switch {
		case authority == nil && ip != nil:
			template.PermittedIPRanges = append(template.PermittedIPRanges,
				&net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))})
		case authority == nil:
			template.PermittedDNSDomains = append(template.PermittedDNSDomains, name)
		case ip != nil:
			template.IPAddresses = append(template.IPAddresses, ip)
		default:
			template.DNSNames = append(template.DNSNames, name)
		}
	}

	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return &pair{certificate, key}, nil
}

// save writes the key and the certificate. If only one of them is written, loadPair
// ignores it.
func (p *pair) save(certificateFile, keyFile string) error {
	raw, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return fmt.Errorf("encoding a key: %w", err)
	}
	defer clear(raw)
	if err := writePEM(keyFile, 0o600, "PRIVATE KEY", raw); err != nil {
		return err
	}
	return writePEM(certificateFile, 0o644, "CERTIFICATE", p.certificate.Raw)
}

// writePEM replaces a file atomically.
func writePEM(file string, mode fs.FileMode, kind string, raw []byte) error {
	content := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
	defer clear(content)
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("writing a PEM file: %w", err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("writing a PEM file: %w", err), os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return errors.Join(fmt.Errorf("writing a PEM file: %w", err), os.Remove(f.Name()))
	}
	return nil
}
