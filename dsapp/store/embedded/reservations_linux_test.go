package embedded_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/internal/namespace"
)

// onSmallDisk runs the test again in a mount namespace and calls test there with a store on a
// file system of 16 MiB.
func onSmallDisk(t *testing.T, test func(s *embedded.Store, folder string)) {
	t.Helper()
	if namespace.Inside() {
		folder := namespace.SmallDisk(t, 16<<20)
		test(open(t, filepath.Join(folder, "dsapp.db"), embedded.Options{}), folder)
		return
	}
	t.Parallel()
	// The program is killed when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	again := namespace.Command(t.Context(), syscall.CLONE_NEWNS, "-test.run=^"+t.Name()+"$")
	if err := again.Run(); errors.Is(err, os.ErrPermission) {
		t.Skipf("no mount namespace: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// largest returns a record of the greatest size.
func largest(identifier string) activation.Record {
	r := record(identifier, 1)
	r.Facts, r.Verifier, r.Data = nil, nil, make([]byte, activation.MaxRecord)
	return r
}

// While another program and other calls fill the disk, every Create after a successful Reserve
// succeeds. Reserve fails when the disk is full, also with many concurrent calls, and succeeds
// again when there is space.
func TestFullDisk(t *testing.T) {
	onSmallDisk(t, func(s *embedded.Store, folder string) { testFullDisk(t, s, folder) })
}

func testFullDisk(t *testing.T, s *embedded.Store, folder string) {
	t.Helper()
	var kept, refused atomic.Int32
	// The other program sends here after it has written or tried to.
	wrote := make(chan struct{})
	register := func(identifier string) {
		release, err := s.Reserve(t.Context())
		if err != nil {
			if !errors.Is(err, activation.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: error %v", identifier, err)
			}
			refused.Add(1)
			return
		}
		defer release()
		<-wrote
		r := largest(identifier)
		if _, ok, err := s.Create(t.Context(), r, activation.Generation{}); err != nil || !ok {
			t.Errorf("%s was lost: created %v, error %v", identifier, ok, err)
		}
		kept.Add(1)
		// Otherwise the file would grow without a limit.
		if err := s.Remove(t.Context(), r.Identifier, r.Generation); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("remove: error %v", err)
		}
	}
	// These run while the disk is filled again and again.
	const enough = 300
	var wg sync.WaitGroup
	for c := range 10 {
		wg.Go(func() {
			for i := 0; refused.Load() < enough; i++ {
				register(fmt.Sprintf("early-%d-%d", c, i))
			}
		})
		wg.Go(func() {
			for i := 0; refused.Load() < enough; i++ {
				key := fmt.Sprintf("%d-%d", c, i)
				_, err := s.Claim(t.Context(), ownership.Login, claim(key, 1), "device-"+key, time.Hour)
				if err != nil && !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("claim: error %v", err)
				}
			}
		})
	}
	// Claims in the archive make the file grow.
	wg.Go(func() {
		for refused.Load() < enough {
			if err := s.Archive(); err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("archive: error %v", err)
			}
		}
	})
	other, err := os.OpenFile(filepath.Join(folder, "other"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	wg.Go(func() {
		defer close(wrote)
		size, until := 0, int32(0)
		for refused.Load() < enough {
			n, err := other.Write(make([]byte, 4096))
			select {
			case wrote <- struct{}{}:
			default:
			}
			if size += n; err == nil {
				continue
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
				return
			}
			if refused.Load() < until {
				continue
			}
			until = refused.Load() + 20
			size /= 2
			if err := other.Truncate(int64(size)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Wait()
	if kept.Load() == 0 {
		t.Error("no registration was kept")
	}
	if err := other.Truncate(0); err != nil {
		t.Fatal(err)
	}
	kept.Store(0)
	register("after")
	if kept.Load() != 1 {
		t.Error("a disk that has room again keeps no registration")
	}
}

// A store whose last write failed is not ready. It tries to write again by itself, so that it is
// ready when there is space, also if nobody calls it.
func TestReadyOnFullDisk(t *testing.T) {
	onSmallDisk(t, func(s *embedded.Store, folder string) {
		if _, err := s.Ready(); err != nil {
			t.Fatal(err)
		}
		other, err := os.Create(filepath.Join(folder, "other"))
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		for err == nil {
			_, err = other.Write(make([]byte, 4096))
		}
		if _, err := s.Reserve(t.Context()); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		since, err := s.Ready()
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("on a full disk: %v", err)
		}
		s.RetryWrite()
		if again, err := s.Ready(); !errors.Is(err, syscall.ENOSPC) || !again.Equal(since) {
			t.Errorf("the disk is still full: since %v and %v, %v", since, again, err)
		}
		if err := other.Truncate(0); err != nil {
			t.Fatal(err)
		}
		s.RetryWrite()
		if _, err := s.Ready(); err != nil {
			t.Errorf("on a disk that has room again: %v", err)
		}
	})
}

// Other calls do not use the space that is reserved on a full disk.
func TestOtherCallsKeepReservedSpace(t *testing.T) {
	onSmallDisk(t, func(s *embedded.Store, folder string) {
		const registrations = 20
		for range registrations {
			release, err := s.Reserve(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer release()
		}
		other, err := os.Create(filepath.Join(folder, "other"))
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		for err == nil {
			_, err = other.Write(make([]byte, 4096))
		}
		err = nil
		for i := 0; err == nil; i++ {
			_, err = s.Claim(t.Context(), ownership.Login, claim(fmt.Sprint(i), 1), "device-"+fmt.Sprint(i), time.Hour)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		for i := range registrations {
			create(t, s, largest(fmt.Sprint("id-", i)))
		}
	})
}
