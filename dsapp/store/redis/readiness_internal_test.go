package redis

import (
	"context"
	"errors"
	"io"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
)

// What a call says about its server decides whether the store is ready.
func TestReadinessFollowsCalls(t *testing.T) {
	t.Parallel()
	const server = "10.0.0.1:6379"
	script, read := &call{script: script{lua: newLua("")}}, &call{}
	for name, test := range map[string]struct {
		call  *call
		err   error
		ready bool
	}{
		"an answer":             {script, nil, true},
		"moved slot":            {script, serverError("MOVED 1 10.0.0.2:6379"), true},
		"damaged value":         {script, serverError("WRONGTYPE Operation against a key"), true},
		"lost connection":       {script, io.EOF, false},
		"open breaker":          {script, &breaker.OpenError{}, false},
		"too few replicas":      {script, errTooFewReplicas, false},
		"no free connection":    {script, goredis.ErrPoolTimeout, true},
		"closed client":         {script, goredis.ErrClosed, true},
		"loading":               {read, serverError("LOADING Redis is loading the dataset in memory"), false},
		"wrong password":        {read, serverError("WRONGPASS invalid username-password pair"), false},
		"full":                  {script, serverError("OOM command not allowed when used memory > 'maxmemory'"), false},
		"full, told by Redis 6": {script, serverError("ERR Error running script (call to f_0): @user_script:1: OOM command not allowed"), false},
	} {
		now := clock.New()
		r := newReadiness(now.Now)
		r.record(t.Context(), server, read, nil)
		began := now.Now()
		now.Advance(idleInterval)
		r.record(t.Context(), server, test.call, test.err)
		since, err := r.state()
		if (err == nil) != test.ready || err != nil && !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s: ready since %v, %v", name, since, err)
		}
		if test.ready {
			if !since.Equal(began) {
				t.Errorf("%s: ready since %v", name, since)
			}
			continue
		}
		if !since.Equal(now.Now()) {
			t.Errorf("%s: not ready since %v", name, since)
		}
		r.record(t.Context(), server, script, nil)
		if since, err := r.state(); err != nil || !since.Equal(now.Now()) {
			t.Errorf("%s, then an answer: ready since %v, %v", name, since, err)
		}
	}

	now := clock.New()
	r := newReadiness(now.Now)
	if _, err := r.state(); !errors.Is(err, errNotAsked) {
		t.Errorf("before the first answer: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r.record(ended, server, script, context.Canceled)
	if _, err := r.state(); !errors.Is(err, errNotAsked) {
		t.Errorf("after a call that its caller gave up: %v", err)
	}
	// A server that refuses to write is not ready because it can be read.
	r.record(t.Context(), server, script, serverError("OOM command not allowed"))
	r.record(t.Context(), server, read, nil)
	if _, err := r.state(); err == nil {
		t.Error("ready although the server is full")
	}
	// One server of several is enough to be not ready, as long as it is called.
	r.record(t.Context(), "10.0.0.2:6379", script, nil)
	if _, err := r.state(); err == nil {
		t.Error("ready although one of two servers is full")
	}
	now.Advance(failureLifetime + 1)
	if _, err := r.state(); err != nil {
		t.Errorf("long after the last failure: %v", err)
	}
}
