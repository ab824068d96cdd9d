package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

func init() {
	caddy.RegisterModule(new(execHandler))
}

// execHandler stands in for the handler `exec`, which standard Caddy does not have. Instead of
// running a command it keeps it, with its placeholders replaced.
type execHandler struct {
	Command string   `json:"command"`
	Args    []string `json:"args"`
}

// executed is what all handlers have kept.
var executed struct {
	mu       sync.Mutex
	commands []string
	// enter, unless nil, is called by each handler first.
	enter func()
}

func (*execHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.exec", New: func() caddy.Module { return new(execHandler) }}
}

func (h *execHandler) Handle(ctx context.Context, _ caddy.Event) error {
	repl := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	words := []string{h.Command}
	for _, arg := range h.Args {
		words = append(words, repl.ReplaceAll(arg, ""))
	}
	executed.mu.Lock()
	enter := executed.enter
	executed.mu.Unlock()
	if enter != nil {
		enter()
	}
	executed.mu.Lock()
	defer executed.mu.Unlock()
	executed.commands = append(executed.commands, strings.Join(words, ","))
	return nil
}

var _ caddyevents.Handler = (*execHandler)(nil)

// resetExecuted forgets what handlers have kept. From now on they call enter first.
func resetExecuted(t *testing.T, enter func()) {
	t.Helper()
	set := func(enter func()) {
		executed.mu.Lock()
		defer executed.mu.Unlock()
		executed.commands, executed.enter = nil, enter
	}
	set(enter)
	t.Cleanup(func() { set(nil) })
}

// executedCommands returns the commands so far.
func executedCommands() []string {
	executed.mu.Lock()
	defer executed.mu.Unlock()
	return append([]string(nil), executed.commands...)
}

// awaitExecuted waits for the commands of all handlers.
func awaitExecuted(t *testing.T, want ...string) {
	t.Helper()
	poll.Until(t, fmt.Sprintf("%d commands", len(want)), func() bool { return len(executedCommands()) >= len(want) })
	assert.Equal(t, want, executedCommands())
}

// hook configures a handler for the events with a name, which runs a command.
func (s *site) hook(name, command string) {
	in(s.config, "apps")["events"] = object{"subscriptions": []object{{
		"events": []string{name}, "modules": []string{appName},
		"handlers": []object{{"handler": "exec", "command": command, "args": []string{"{event.data.number}"}}},
	}}}
}

const testEvent = "dsapp_test"

// holdFirst emits event 0 and returns when its handler runs, which waits for proceed to be
// closed. Later handlers do not wait.
func holdFirst(t *testing.T) (proceed chan struct{}) {
	t.Helper()
	entered, proceed := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	resetExecuted(t, func() {
		if first.CompareAndSwap(false, true) {
			close(entered)
			<-proceed
		}
	})
	emitNumber(t, 0)
	poll.Receive(t, "the handler to run", entered)
	return proceed
}

func emitNumber(t *testing.T, number int) {
	t.Helper()
	emitEvent(t.Context(), testEvent, text{"number", strconv.Itoa(number)})
}

// numbered returns the commands for the events from first to last.
func numbered(command string, first, last int) (commands []string) {
	for i := first; i <= last; i++ {
		commands = append(commands, command+","+strconv.Itoa(i))
	}
	return commands
}

// droppedEvents returns the value of the counter.
func droppedEvents(t *testing.T) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	require.NoError(t, r.Register(metrics.eventsDropped))
	families, err := r.Gather()
	require.NoError(t, err)
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// The example of docs/operation.md runs its command for an event.
func TestExampleOfEvents(t *testing.T) {
	s := newSite(t)
	documented, err := os.ReadFile("../docs/operation.md")
	require.NoError(t, err)
	example := regexp.MustCompile("(?s)```json\n(\"events\".*?)```").FindSubmatch(documented)
	require.NotNil(t, example)
	var apps map[string]any
	require.NoError(t, json.Unmarshal([]byte("{"+string(example[1])+"}"), &apps))
	in(s.config, "apps")["events"] = apps["events"]
	s.load(t)
	resetExecuted(t, nil)
	r := s.register(t)
	for range 3 {
		_, err := s.phone(testFrontEndKey).Activate(t.Context(), r.Result.Identifier, "wrong-password")
		require.Error(t, err)
	}
	awaitExecuted(t, "/usr/local/bin/dsapp-alarm,registration_burned,,"+r.Result.Identifier)
}

// While a handler does not return, a bounded number of events waits for it. Further ones are
// dropped and counted, and whoever emits them does not wait. A panic of a handler ends nothing.
func TestEventQueueIsBounded(t *testing.T) {
	s := newSite(t)
	s.hook(testEvent, "run")
	s.load(t)
	proceed := holdFirst(t)
	before := droppedEvents(t)
	for i := range maxQueuedEvents + 3 {
		emitNumber(t, i+1)
	}
	assert.InDelta(t, before+3, droppedEvents(t), 0)
	close(proceed)
	awaitExecuted(t, numbered("run", 0, maxQueuedEvents)...)

	var panicked sync.Once
	resetExecuted(t, func() { panicked.Do(func() { panic("a defect") }) })
	emitNumber(t, 1)
	emitNumber(t, 2)
	awaitExecuted(t, "run,2")
}

// A reload neither waits for a handler nor loses an event that waits: the handlers of the new
// configuration get it.
func TestEventsOutliveReloads(t *testing.T) {
	s := newSite(t)
	s.hook(testEvent, "old")
	s.load(t)
	proceed := holdFirst(t)
	for i := range 9 {
		emitNumber(t, i+1)
	}
	s.hook(testEvent, "new")
	s.load(t)
	awaitExecuted(t, numbered("new", 1, 9)...)
	close(proceed)
	awaitExecuted(t, append(numbered("new", 1, 9), "old,0")...)
}

// A stop gives the handlers of waiting events a moment and does not wait longer for one that
// does not return. What happens without a configuration is dropped.
func TestStopFlushesEvents(t *testing.T) {
	s := newSite(t)
	s.hook(testEvent, "run")
	s.load(t)
	resetExecuted(t, nil)
	for i := range 9 {
		emitNumber(t, i)
	}
	require.NoError(t, caddy.Stop())
	assert.Equal(t, numbered("run", 0, 8), executedCommands())

	before := droppedEvents(t)
	emitNumber(t, 9)
	assert.InDelta(t, before+1, droppedEvents(t), 0)

	s.load(t)
	proceed := holdFirst(t)
	began := time.Now()
	require.NoError(t, caddy.Stop())
	assert.GreaterOrEqual(t, time.Since(began), flushTimeout)
	close(proceed)
	awaitExecuted(t, "run,0")
}
