package redis_test

import (
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// BenchmarkScripts measures how long the server is busy with each call, what the call costs this
// process, and how many bytes a registration with an activation message of the greatest length takes.
func BenchmarkScripts(b *testing.B) {
	server := redistest.Start(b)
	client, err := redis.NewClient(redis.Settings{Addresses: []string{server.Addr()}})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	s, ctx := redis.New(client, redis.Options{}), b.Context()
	id := func(i int) string { return fmt.Sprintf("identifier-%05d", i) }
	token := func(i int) (t activation.Token) {
		copy(t[:], id(i))
		return t
	}
	owned := func(i int) ownership.Claim {
		return ownership.Claim{Key: id(i), Token: ownership.Token(token(i)), Owner: make([]byte, 110)}
	}
	marked := func(i int) repeat.Mark {
		m := repeat.Mark{Place: id(i), Token: repeat.Token(token(i)), Lifetime: time.Minute}
		copy(m.Digest[:], id(i))
		return m
	}
	for _, call := range []struct {
		name string
		do   func(i int) error
	}{
		{"create", func(i int) error {
			_, _, err := s.Create(ctx, longest(id(i)), activation.Generation{})
			return err
		}},
		{"load", func(i int) error { _, _, err := s.Load(ctx, id(i)); return err }},
		{"put", func(i int) error {
			_, err := s.PutHandshake(ctx, id(i), activation.Handshake{Generation: activation.Generation{1}, State: make([]byte, 900), Lifetime: time.Minute})
			return err
		}},
		{"take", func(i int) error { _, _, err := s.Take(ctx, id(i), token(i), activation.Tag{}, 3); return err }},
		{"settle", func(i int) error {
			_, _, err := s.Settle(ctx, id(i), activation.Settlement{Generation: activation.Generation{1}, Token: token(i), Proven: true, MaxAttempts: 3, MaxActivations: 3})
			return err
		}},
		{"admit device", func(i int) error { _, _, err := s.AdmitDevice(ctx, id(i), 3); return err }},
		{"admit confirmation", func(i int) error { _, _, err := s.AdmitConfirmation(ctx, id(i), 3, activation.KindMDL); return err }},
		{"remove", func(i int) error { return s.Remove(ctx, id(i), activation.Generation{1}) }},
		{"claim", func(i int) error { _, err := s.Claim(ctx, ownership.Login, owned(i), id(i), time.Hour); return err }},
		{"mark, owner", func(i int) error {
			_, _, _, _, err := s.MarkOwner(ctx, marked(i), ownership.Login, id(i))
			return err
		}},
		{"keep, claim", func(i int) error {
			_, err := s.KeepClaim(ctx, marked(i), make([]byte, 500), ownership.Login, owned(i), id(i), time.Hour)
			return err
		}},
		{"keep, release", func(i int) error {
			return s.KeepRelease(ctx, marked(i), make([]byte, 150), ownership.Login, id(i), owned(i).Token, id(i))
		}},
		{"release", func(i int) error { return s.Release(ctx, ownership.Login, id(i), owned(i).Token, id(i)) }},
	} {
		// Every call needs what the ones before it stored, as often as it is made itself.
		const n = 2000
		b.Run(call.name, func(b *testing.B) {
			for b.Loop() {
				server.Command(b, "CONFIG", "RESETSTAT")
				cpu, allocations := used()
				for i := range n {
					if err := call.do(i); err != nil {
						b.Fatal(err)
					}
				}
				cpuAfter, allocationsAfter := used()
				b.ReportMetric(float64((cpuAfter-cpu).Microseconds())/n, "cpu-µs/call")
				b.ReportMetric(float64(allocationsAfter-allocations)/n, "allocs/call")
			}
			busy := 0.0
			for _, m := range regexp.MustCompile(`cmdstat_(?:eval|evalsha|getrange):calls=\d+,usec=(\d+)`).FindAllStringSubmatch(server.Command(b, "INFO", "commandstats"), -1) {
				usec, err := strconv.ParseFloat(m[1], 64)
				if err != nil {
					b.Fatal(err)
				}
				busy += usec
			}
			b.ReportMetric(busy/n, "server-µs/call")
			if call.name == "create" {
				b.ReportMetric(size(b, server, id(1)), "B/registration")
			}
		})
	}
}

// longest returns a registration whose activation message has the greatest length.
func longest(identifier string) activation.Record {
	return activation.Record{
		Identifier: identifier, Generation: activation.Generation{1}, Kind: activation.KindMDL, Lifetime: time.Hour,
		Facts: make([]byte, 120), Verifier: make([]byte, 353), Data: make([]byte, 2170),
	}
}

// size returns how many bytes of its memory a server needs for a registration.
func size(tb testing.TB, server *redistest.Server, identifier string) float64 {
	tb.Helper()
	bytes, err := strconv.ParseFloat(server.Command(tb, "MEMORY", "USAGE", "dsapp:{"+identifier+"}:reg", "SAMPLES", "0"), 64)
	if err != nil {
		tb.Fatal(err)
	}
	return bytes
}

// A registration whose activation message has the greatest length takes at most 4 KiB of a server.
func TestSizeOfRegistrations(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	create(t, s, longest("identifier-00001"))
	if got := size(t, server, "identifier-00001"); got > 4096 {
		t.Errorf("%.0f bytes", got)
	}
}

// used returns the CPU time that this process has used, and its allocations.
func used() (cpu time.Duration, allocations uint64) {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), m.Mallocs
}
