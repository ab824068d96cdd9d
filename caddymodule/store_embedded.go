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

// EmbeddedStore keeps registrations and the ownership of requests in a file, for a
// gateway with a single node. Handshakes, which live for minutes, are in memory. They
// survive reloads, but not a restart of the process. Four more files have the calls that
// may be repeated, with `.calls0` and `.calls1` appended to the name, and the ownership
// of the last minutes, with `.claims0` and `.claims1`. What they have survives the end of
// the process, but a power failure can lose the last seconds of it. They need no backup.
//
// If no `sealing_keys` are configured, the first use of the store creates a key in a file
// beside it, with the same name and `.key` appended. That key continues to decrypt, also
// if `sealing_keys` are configured later. Back up both files, but not to the same place:
// together they reveal pending activation data. If the key file is lost, no new key is
// created: every activation service answers with status 503 until the key file is
// restored or the file of the store, `.claims0` and `.claims1` are moved away.
type EmbeddedStore struct {
	// The name of the file. The gateway creates it, readable by its owner only, together
	// with missing folders. Only one process can use it at a time.
	// Accepts placeholders. Default: `dsapp.db` in the folder `dsapp` of Caddy's data
	// directory.
	Path string `json:"path,omitempty"`

	*lease[*embeddedFile]

	path string
}

// embeddedFile is an open file.
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

// UnmarshalJSON decodes the options. Its errors begin with the path of the option.
func (s *EmbeddedStore) UnmarshalJSON(data []byte) error {
	type options EmbeddedStore
	return decodeConfig(data, (*options)(s))
}

// Provision determines the name of the file. The file need not exist.
func (s *EmbeddedStore) Provision(caddy.Context) error {
	path, err := EmbeddedPath(s.Path)
	if err != nil {
		return option.In("path", err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return option.Errorf("path", "is a folder; name a file in it, such as %s", filepath.Join(path, "dsapp.db"))
	}
	s.path = path
	s.lease, err = newLease(storePool, "embedded "+path, (&fileOpener{path: path}).open)
	return err
}

// EmbeddedPath returns the absolute name of the file for the configured path, with
// placeholders resolved. The empty string stands for the default path.
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

// fileOpener opens a file. Every request that needs the store tries to open it. A damaged
// file is therefore not read again until its size, time or identity has changed.
type fileOpener struct {
	path string

	// mu is needed because an attempt for a closed resource may still be running.
	mu         sync.Mutex
	failedFile fs.FileInfo
	failure    error
}

func (o *fileOpener) open() (*embeddedFile, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	info, err := os.Stat(o.path)
	if err == nil && o.failure != nil && os.SameFile(info, o.failedFile) &&
		info.Size() == o.failedFile.Size() && info.ModTime().Equal(o.failedFile.ModTime()) {
		return nil, o.failure
	}
	store, err := embedded.Open(o.path, embedded.Options{Observe: both(metrics.storeCall, traceStoreCall)})
	o.failedFile, o.failure = info, nil
	if _, ok := errors.AsType[*embedded.FileError](err); ok && info != nil {
		o.failure = err
	}
	if err != nil {
		return nil, err
	}
	return &embeddedFile{store, o.path}, nil
}

// Begin implements Store.
func (s *EmbeddedStore) Begin() (end func()) {
	s.beginRequest()
	return s.endRequest
}

// Open implements Store.
func (s *EmbeddedStore) Open(ctx context.Context) (OpenStore, error) { return s.get(ctx) }

// Cleanup releases the file.
func (s *EmbeddedStore) Cleanup() error {
	s.release()
	return nil
}

// usage returns the number of registrations in the file and its size in bytes, and false if
// it is not open.
func (s *EmbeddedStore) usage() (registrations int, size int64, open bool) {
	file, open := s.opened()
	if !open {
		return 0, 0, false
	}
	registrations, size, err := file.Usage()
	return registrations, size, err == nil
}

// CheckSealingKeys implements Store. It accepts any number of keys.
func (*EmbeddedStore) CheckSealingKeys(int) error { return nil }

// Keys implements OpenStore. It returns the configured keys and the key in the key file.
// If neither exists, it creates the key file. It does so only while the file is open,
// which also means that no other process uses it.
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
	// The key in the key file may also be configured.
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
	_ damageReporter     = (*embeddedFile)(nil)
)
