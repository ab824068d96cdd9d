package caddymodule

import (
	"context"
	"crypto/subtle"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

func init() {
	caddy.RegisterModule(new(EmbeddedStore))
}

// EmbeddedStore keeps registrations and the ownership of requests in one file, for
// a gateway of one node. Handshakes, which live for minutes, are in memory: they
// outlive reloads, not the process.
//
// If no `sealing_keys` are configured, a key is made in a file beside it, named
// after it with `.key` at the end, when the store is first used. From then on
// that key opens records, also beside configured keys. Back both files up
// separately: together they give pending activation data away. If the key file
// is lost no other key is made: every activation service answers with status 503
// until the key file is restored or the store's file moved away.
type EmbeddedStore struct {
	// The file. It is made, readable by its owner only, with missing folders. Only
	// one process can use it at a time.
	// Accepts placeholders. Default: `dsapp/dsapp.db` in Caddy's data directory.
	Path string `json:"path,omitempty"`

	*lease[*embeddedFile]

	path string
}

// embeddedFile is a file that is open.
type embeddedFile struct {
	*embedded.Store
	path string
}

// CaddyModule returns the Caddy module information.
func (*EmbeddedStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dsapp.stores.embedded",
		New: func() caddy.Module { return new(EmbeddedStore) },
	}
}

// UnmarshalJSON decodes the options. Errors name them.
func (s *EmbeddedStore) UnmarshalJSON(data []byte) error {
	type options EmbeddedStore
	return decodeConfig(data, (*options)(s))
}

// Provision finds out where the file is. There need not be one.
func (s *EmbeddedStore) Provision(caddy.Context) error {
	path, err := EmbeddedPath(s.Path)
	if err != nil {
		return option.In("path", err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return option.Errorf("path", "is a folder; name a file in it, such as %s", filepath.Join(path, "dsapp.db"))
	}
	s.path = path
	s.lease, err = newLease(storePool, "embedded "+path, (&opener{path: path}).open)
	return err
}

// EmbeddedPath returns the name of the file that a configured path stands for.
func EmbeddedPath(configured string) (string, error) {
	if configured == "" {
		return filepath.Abs(filepath.Join(caddy.AppDataDir(), "dsapp", "dsapp.db"))
	}
	path, err := resolveSecret(configured)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// opener opens a file. One that cannot be used is not read again before it changes:
// every request that needs the store tries to open it.
type opener struct {
	path string

	// An attempt that belongs to a resource which was closed may still be running.
	mu      sync.Mutex
	refused fs.FileInfo
	refusal error
}

func (o *opener) open() (*embeddedFile, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	info, err := os.Stat(o.path)
	if err == nil && o.refusal != nil && os.SameFile(info, o.refused) &&
		info.Size() == o.refused.Size() && info.ModTime().Equal(o.refused.ModTime()) {
		return nil, o.refusal
	}
	store, err := embedded.Open(o.path, embedded.Options{})
	o.refused, o.refusal = info, nil
	if _, ok := errors.AsType[*embedded.FileError](err); ok && info != nil {
		o.refusal = err
	}
	if err != nil {
		return nil, err
	}
	return &embeddedFile{store, o.path}, nil
}

// Begin counts a request. See Store.
func (s *EmbeddedStore) Begin() (end func()) {
	s.begin()
	return s.end
}

// Open opens the file unless it is open. See Store.
func (s *EmbeddedStore) Open(ctx context.Context) (OpenStore, error) { return s.get(ctx) }

// Cleanup lets go of the file.
func (s *EmbeddedStore) Cleanup() error {
	s.release()
	return nil
}

// CheckSealingKeys accepts any number. See Store.
func (*EmbeddedStore) CheckSealingKeys(int) error { return nil }

// Keys returns the configured keys, if any, and the key beside the file, which it
// makes if it is needed. A file that another process holds is not open, and gets no
// key. See OpenStore.
func (f *embeddedFile) Keys(ctx context.Context, configured [][]byte) ([][]byte, error) {
	if len(configured) == 0 {
		key, err := f.LoadOrCreateKey(ctx)
		return [][]byte{key}, err
	}
	key, found, err := embedded.LoadKey(f.path)
	if err != nil || !found {
		return configured, err
	}
	keys := slices.Clone(configured)
	// The key of the file may have become a configured one.
	if !slices.ContainsFunc(configured, func(c []byte) bool { return subtle.ConstantTimeCompare(c, key) == 1 }) {
		keys = append(keys, key)
	}
	return keys, nil
}

var (
	_ caddy.Provisioner  = (*EmbeddedStore)(nil)
	_ caddy.CleanerUpper = (*EmbeddedStore)(nil)
	_ Store              = (*EmbeddedStore)(nil)
	_ OpenStore          = (*embeddedFile)(nil)
	_ losable            = (*embeddedFile)(nil)
)
