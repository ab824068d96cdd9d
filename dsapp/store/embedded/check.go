package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrLocked is wrapped by the error of Check for a file that another process has open.
var ErrLocked = errors.New("another process has the file open")

var errForeign = &FileError{"the file is not a store of this program: name another one, or move the file aside"}

// Contents is the number of things in a file, including those that have expired and are not
// removed yet.
type Contents struct {
	// Registrations is the number of registrations without the simulated ones.
	Registrations int
	// Simulated is the number of simulated registrations.
	Simulated int
	// Claims is the number of claims.
	Claims int
	// Size is the size of the file in bytes.
	Size int64
}

// counter counts what a walker visits.
type counter struct{ entries, simulated, claims atomic.Int64 }

func (c *counter) visit(bucket string, key, _ []byte) {
	if key == nil {
		return
	}
	switch bucket {
	case bucketEntries:
		c.entries.Add(1)
	case bucketSimulated:
		c.simulated.Add(1)
	case bucketClaims:
		c.claims.Add(1)
	}
}

func (c *counter) contents(size int64) Contents {
	simulated := int(c.simulated.Load())
	return Contents{Registrations: int(c.entries.Load()) - simulated, Simulated: simulated, Claims: int(c.claims.Load()), Size: size}
}

// Check reads the whole file at path and its segments of claims, and does not change them. The error
// says what is wrong and what to do about it. Check refuses a file that another process has open.
func Check(path string) (Contents, error) {
	var found counter
	var broken atomic.Int64
	var mu sync.Mutex // of format
	var format []byte
	var empty atomic.Bool
	empty.Store(true)
	recent, claimed, undecoded, claimsErr := loadClaims(path)
	found.claims.Add(int64(claimed))
	broken.Add(int64(undecoded))
	size, err := verify(path, time.Nanosecond, func(bucket string, key, value []byte) {
		empty.Store(false)
		if key == nil {
			return
		}
		if bucket == bucketClaims {
			if _, _, known := recent.last(claimDigest(string(key))); known {
				return
			}
		}
		found.visit(bucket, key, value)
		var err error
		switch bucket {
		case bucketMeta:
			if string(key) == keyFormat {
				mu.Lock()
				format = bytes.Clone(value)
				mu.Unlock()
			}
		case bucketEntries:
			_, err = readEntry(value)
		case bucketSealed:
			_, _, err = decodeParts(value)
		case bucketClaims:
			_, err = decodeClaim(value)
		}
		if err != nil {
			broken.Add(1)
		}
	})
	switch {
	case errors.Is(err, ErrLocked):
		return Contents{}, fmt.Errorf("%w: stop it first, such as the gateway; a copy made meanwhile need not be whole", err)
	case err != nil:
		return Contents{}, err
	case claimsErr != nil:
		return Contents{}, claimsErr
	}
	if !empty.Load() {
		if _, err := checkFormat(format); err != nil {
			return Contents{}, err
		}
	}
	c := found.contents(size)
	if n := broken.Load(); n > 0 {
		return Contents{}, fmt.Errorf("%d of %d registrations and claims cannot be decoded: "+
			"find out who else can write to the file, and check memory and disk; "+
			"they are refused until they end, or move the file aside: what it holds lives ten minutes", n, c.Registrations+c.Simulated+c.Claims)
	}
	return c, nil
}

// verify reads the whole file at path and returns its size. It calls visit as walkFile does, and
// waits up to the given time for another process that has the file open for writing.
func verify(path string, wait time.Duration, visit visitor) (size int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if info.IsDir() {
		return 0, errors.New("it is a directory")
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("it is not a regular file")
	}
	if info.Size() == 0 {
		return 0, nil
	}
	// When bbolt opens a file for reading only, it reads nothing but the meta pages.
	db, _, err := openBolt(path, bolt.Options{ReadOnly: true, Timeout: wait}, func(_ *bolt.DB, file *os.File) error {
		if info, err = file.Stat(); err != nil {
			return err
		}
		return walkFile(file, visit)
	})
	if err != nil {
		return 0, err
	}
	return info.Size(), db.Close()
}

// openBolt lets bbolt lock and map the file and then calls prepare. It fails before that if
// the file is shorter than its meta pages say.
func openBolt(path string, opts bolt.Options, prepare func(*bolt.DB, *os.File) error) (db *bolt.DB, file *os.File, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = errors.Join(damaged("%s", describe(cause)), abandonFile(file))
		}
	}()
	opts.OpenFile = func(name string, flag int, mode fs.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, mode)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		// bbolt initialises an empty file.
		if err == nil && info.Size() > 0 {
			_, err = readMeta(f)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		file = f
		return f, nil
	}
	db, err = bolt.Open(path, 0o600, &opts)
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = ErrLocked
	}
	if err != nil {
		return nil, nil, err
	}
	if err := prepare(db, file); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, file, nil
}
