//go:build unix

package embedded_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

// benchRecords is an environment variable: the number of registrations, and of claims, that
// lie in the file beside those of the flows. A million needs 6 GB of disk and some minutes.
const benchRecords = "DSAPP_BENCH_RECORDS"

// ownerSize is the size of the sealed owner of a request.
const ownerSize = 110

// dataSize is the size of the sealed data of an MDL registration.
const dataSize = 2200

// crowd is a store with many registrations and claims.
type crowd struct {
	*embedded.Store

	path string
	// late is by how much the store's clock is ahead, in nanoseconds.
	late atomic.Int64
	next atomic.Int64
}

// newCrowd opens a store and fills it with the number of records that benchRecords says.
func newCrowd(b *testing.B) *crowd {
	b.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(benchRecords), "1000"))
	if err != nil {
		b.Fatal(err)
	}
	c := &crowd{path: filepath.Join(b.TempDir(), "dsapp.db")}
	c.open(b)
	// The benchmarks below open other stores.
	b.Cleanup(func() { c.Close() })
	if err := c.Fill(n, c.name, c.record(""), make([]byte, ownerSize)); err != nil {
		b.Fatal(err)
	}
	return c
}

func (c *crowd) open(b *testing.B) {
	b.Helper()
	s, err := embedded.Open(c.path, embedded.Options{Now: c.now})
	if err != nil {
		b.Fatal(err)
	}
	c.Store = s
}

func (c *crowd) now() time.Time { return time.Now().Add(time.Duration(c.late.Load())) }

// name returns a new identifier. They are in no order, as those of an authentication server.
func (c *crowd) name() string {
	return fmt.Sprintf("%016X", uint64(c.next.Add(1))*0x9E3779B97F4A7C15)
}

// record returns a registration with the sizes of a real one: an Activation Message 1 has about
// 2 kB.
func (c *crowd) record(name string) activation.Record {
	r := activation.Record{
		Identifier: name, Kind: activation.KindMDL, Lifetime: time.Hour,
		Facts: make([]byte, 110), Verifier: make([]byte, 330), Data: make([]byte, dataSize),
	}
	copy(r.Generation[:], name)
	return r
}

func (c *crowd) register(name string) error {
	_, created, err := c.Create(context.Background(), c.record(name), activation.Generation{})
	if err == nil && !created {
		err = fmt.Errorf("%s exists", name)
	}
	return err
}

// sign makes the calls of a request that a phone retrieves and answers.
func (c *crowd) sign() error {
	ctx, name := context.Background(), c.name()
	retrieved, completed := repeat.Mark{Lifetime: time.Minute}, repeat.Mark{Lifetime: time.Minute}
	copy(retrieved.Digest[:], "retrieved "+name)
	copy(completed.Digest[:], "completed "+name)
	if _, _, _, _, err := c.MarkOwner(ctx, retrieved, ownership.Signature, name); err != nil {
		return err
	}
	claim := ownership.Claim{Key: name, Token: ownership.Token([]byte(name)), Owner: make([]byte, 110)}
	if _, err := c.KeepClaim(ctx, retrieved, make([]byte, 600), ownership.Signature, claim, "VDS"+name, time.Hour); err != nil {
		return err
	}
	if _, _, _, _, err := c.MarkOwner(ctx, completed, ownership.Signature, name); err != nil {
		return err
	}
	return c.KeepRelease(ctx, completed, make([]byte, 150), ownership.Signature, name, claim.Token, "VDS"+name)
}

// activate makes the calls of a whole activation.
func (c *crowd) activate() error {
	ctx, name := context.Background(), c.name()
	g, token := activation.Generation([]byte(name)), activation.Token([]byte(name))
	release, err := c.Reserve(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := c.register(name); err != nil {
		return err
	}
	if _, _, err := c.Load(ctx, name); err != nil {
		return err
	}
	if _, err := c.PutHandshake(ctx, name, activation.Handshake{Generation: g, State: make([]byte, 400), Lifetime: time.Minute}); err != nil {
		return err
	}
	if _, ok, err := c.Take(ctx, name, token, activation.Tag{}, 3); err != nil || !ok {
		return fmt.Errorf("take: %v, %w", ok, err)
	}
	if _, ok, err := c.Settle(ctx, name, activation.Settlement{Generation: g, Token: token, Proven: true, MaxAttempts: 3, MaxActivations: 3}); err != nil || !ok {
		return fmt.Errorf("settle: %v, %w", ok, err)
	}
	added, confirmed := repeat.Mark{Lifetime: time.Minute}, repeat.Mark{Lifetime: time.Minute}
	copy(added.Digest[:], "added "+name)
	copy(confirmed.Digest[:], "confirmed "+name)
	if _, _, _, ok, err := c.MarkDevice(ctx, added, name, 3); err != nil || !ok {
		return fmt.Errorf("device: %v, %w", ok, err)
	}
	if err := c.Keep(ctx, added, make([]byte, 600)); err != nil {
		return err
	}
	if _, _, _, ok, err := c.MarkConfirmation(ctx, confirmed, name, 3, activation.KindMDL); err != nil || !ok {
		return fmt.Errorf("confirmation: %v, %w", ok, err)
	}
	return c.KeepRemove(ctx, confirmed, make([]byte, 150), name, g)
}

// BenchmarkRecords measures a store beside the number of records that benchRecords says: the
// store's part of a signature and of an activation, opening the file, and flows at a fixed rate
// before all other records end, for some time after it and at the end of that time. The last one
// takes the time of its phases: use it with -benchtime=1x.
func BenchmarkRecords(b *testing.B) {
	c := newCrowd(b)
	b.Run("sign", func(b *testing.B) { c.flow(b, c.sign) })
	b.Run("activate", func(b *testing.B) { c.flow(b, c.activate) })
	b.Run("open", c.reopen)
	b.Run("expiry", c.expiry)
}

// flow measures a flow.
func (c *crowd) flow(b *testing.B, flow func() error) {
	before, used := c.DB().Stats(), cpu()
	for b.Loop() {
		if err := flow(); err != nil {
			b.Fatal(err)
		}
	}
	// What the flows leave to the sweeper is part of their cost.
	if err := c.Archive(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(cpu()-used)/1e3/float64(b.N), "cpu-µs/op")
	changed := c.DB().Stats()
	changed = changed.Sub(&before)
	b.ReportMetric(float64(changed.TxStats.GetWrite())/float64(b.N), "writes/op")
}

// reopen measures opening the file.
func (c *crowd) reopen(b *testing.B) {
	_, size, err := c.Usage()
	if err != nil {
		b.Fatal(err)
	}
	before := cpu()
	for b.Loop() {
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		c.open(b)
	}
	b.ReportMetric(float64(cpu()-before)/1e6/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(size)/(1<<20), "MiB")
}

// expiry measures flows before and after the records end.
func (c *crowd) expiry(b *testing.B) {
	phase, err := time.ParseDuration(cmp.Or(os.Getenv("DSAPP_BENCH_PHASE"), "2s"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c.paced(b, time.Second)
		c.paced(b, phase).report(b, "normal")
		before, _, err := c.Usage()
		if err != nil {
			b.Fatal(err)
		}
		c.late.Add(int64(2 * time.Hour))
		for i := range 4 {
			c.paced(b, phase).report(b, "expiry"+strconv.Itoa(i))
		}
		after, _, err := c.Usage()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(before-after), "removed")
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		c.open(b)
		b.ReportMetric(time.Since(start).Seconds(), "open-s")
		c.paced(b, phase).report(b, "reopened")
		info, err := os.Stat(c.path)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/(1<<20), "MiB")
		b.ReportMetric(float64(c.DB().Stats().FreePageN), "free-pages")
	}
}

// pace is the cost of flows at a fixed rate.
type pace struct {
	latencies []time.Duration
	cpu       time.Duration
	took      time.Duration
}

// paced makes 40 signatures and 10 activations a second. A latency counts from the time at
// which the flow was due.
func (c *crowd) paced(b *testing.B, d time.Duration) pace {
	b.Helper()
	const every = 20 * time.Millisecond
	n := int(d / every)
	p := pace{latencies: make([]time.Duration, n)}
	before, start := cpu(), time.Now()
	var wg sync.WaitGroup
	for i := range n {
		due := start.Add(time.Duration(i) * every)
		time.Sleep(time.Until(due))
		flow := c.sign
		if i%5 == 0 {
			flow = c.activate
		}
		wg.Go(func() {
			if err := flow(); err != nil {
				b.Error(err)
			}
			p.latencies[i] = time.Since(due)
		})
	}
	wg.Wait()
	p.cpu, p.took = cpu()-before, time.Since(start)
	slices.Sort(p.latencies)
	return p
}

func (p pace) report(b *testing.B, phase string) {
	b.Helper()
	n := len(p.latencies)
	b.ReportMetric(float64(p.latencies[n/2])/1e6, phase+"-p50-ms")
	b.ReportMetric(float64(p.latencies[n*99/100])/1e6, phase+"-p99-ms")
	b.ReportMetric(100*p.cpu.Seconds()/p.took.Seconds(), phase+"-cpu-%")
}

// cpu returns the CPU time that the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
