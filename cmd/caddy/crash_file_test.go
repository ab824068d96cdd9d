package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// probe checks a copy of the file while no process uses it: every page, and every counter of
// every registration.
func (c *crashes) probe() {
	c.t.Helper()
	content, err := os.ReadFile(c.path)
	require.NoError(c.t, err)
	copied := filepath.Join(c.t.TempDir(), "dsapp.db")
	require.NoError(c.t, os.WriteFile(copied, content, 0o600))
	db, err := bolt.Open(copied, 0o600, nil)
	require.NoError(c.t, err)
	require.NoError(c.t, db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			c.ledger.Broken("file: %v", err)
		}
		return nil
	}))
	require.NoError(c.t, db.Close())

	s, err := embedded.Open(copied, embedded.Options{})
	require.NoError(c.t, err)
	// Concurrent calls share transactions of the store.
	var all sync.WaitGroup
	for _, r := range c.registrations {
		if r.broken || r.expired() {
			continue
		}
		all.Go(func() {
			found, err := count(c.t.Context(), s, r.Identifier)
			if err != nil {
				c.ledger.Broken("counters of %s: %v", r.Identifier, err)
				return
			}
			explained := slices.DeleteFunc(slices.Clone(r.states), func(s state) bool { return s.counters() != found })
			if len(explained) == 0 {
				c.ledger.Broken("%s: the file leaves %+v, which none of %+v explains, after %q", r.Identifier, found, r.states, r.history)
				r.broken = true
				return
			}
			r.states = explained
			r.history = append(r.history, "killed")
		})
	}
	var target counters
	all.Go(func() {
		var err error
		if target, err = count(c.t.Context(), s, c.target.Identifier); err != nil {
			c.ledger.Broken("counters of %s: %v", c.target.Identifier, err)
		}
	})
	all.Wait()
	require.NoError(c.t, s.Close())

	counted := crashAttempts - target.attempts
	looked, proofs := c.looked[c.target.Identifier], int(c.target.proofs.Load())
	if !target.exists || counted < c.target.counted || counted < looked || counted > proofs || target.activations > crashActivations {
		c.ledger.Broken("target %s: the file leaves %+v after %d attempts before, %d wrong proofs looked at and %d sent",
			c.target.Identifier, target, c.target.counted, looked, proofs)
	}
	c.target.counted = counted
}

// count uses a registration up and returns how often it could be used.
func count(ctx context.Context, s *embedded.Store, identifier string) (counters, error) {
	record, found, err := s.Load(ctx, identifier)
	if err != nil || !found || record.Kind == activation.KindSimulated {
		return counters{}, err
	}
	c := counters{exists: true}
	for ; ; c.devices++ {
		if _, ok, err := s.AdmitDevice(ctx, identifier, crashAttempts); err != nil {
			return c, err
		} else if !ok {
			break
		}
	}
	for ; ; c.confirmations++ {
		if _, ok, err := s.AdmitConfirmation(ctx, identifier, crashAttempts, activation.KindMDL); err != nil {
			return c, err
		} else if !ok {
			break
		}
	}
	// A right proof gives its attempt back as long as there are activations left.
	right := true
	for n := byte(1); ; n++ {
		h := activation.Handshake{Generation: record.Generation, Lifetime: time.Minute}
		if _, err := s.PutHandshake(ctx, identifier, h); err != nil {
			return c, err
		}
		token := activation.Token{n, 0xff}
		if _, ok, err := s.Take(ctx, identifier, token, activation.Tag{}, crashAttempts); err != nil {
			return c, err
		} else if !ok {
			return c, nil
		}
		_, ok, err := s.Settle(ctx, identifier, activation.Settlement{
			Generation: record.Generation, Token: token, Proven: right, MaxAttempts: crashAttempts, MaxActivations: crashActivations,
		})
		if err != nil {
			return c, err
		}
		if right = ok; ok {
			c.activations++
		} else {
			c.attempts++
		}
	}
}

// checkLog counts the wrong proofs that a process verified and reports lines that it should not
// have logged.
func (c *crashes) checkLog(g *testbed.Gateway) {
	c.t.Helper()
	lines := strings.Split(g.Logs.String(), "\n")
	for i, line := range lines {
		var entry struct {
			Level, Logger, Msg, Registration, Reason string
			Status                                   any
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			// A kill can cut the last line.
			if i < len(lines)-1 {
				c.ledger.Broken("log: %s", line)
			}
			continue
		}
		if entry.Logger == "http.log.access" && (entry.Status == 503. || entry.Status == 504.) {
			continue // the client judges the answer
		}
		if entry.Level == "error" || entry.Level == "panic" || entry.Level == "fatal" {
			c.ledger.Broken("log: %s", line)
		}
		if entry.Msg == "proof refused" && entry.Reason == "wrong evidence" {
			c.looked[entry.Registration]++
		}
	}
}

// checkTotals checks the sums over all processes, which the authentication server and the logs
// tell.
func (c *crashes) checkTotals() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for identifier, n := range c.added {
		if n > crashActivations {
			c.ledger.Broken("%s: the authentication server added %d devices, %d activations are allowed", identifier, n, crashActivations)
		}
	}
	for identifier, n := range c.looked {
		if n > crashAttempts {
			c.ledger.Broken("%s: %d wrong proofs were looked at, %d are allowed", identifier, n, crashAttempts)
		}
	}
}
