// Package scaling computes the tables of docs/scaling.md, one of which README.md has, too, from the figures in docs/scaling.json: how
// many nodes, shards of Redis and connections to authentication servers a load needs.
//
// Only tests use it: no gateway contains it.
package scaling

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	marks "github.com/dsapp-gateway/dsapp-gateway/internal/figures"
)

//go:generate go test . -run ^TestWritten -update

// figure is a number with what it means and where it comes from.
type figure struct {
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Source string  `json:"source"`
}

// figures is what the tables are computed from.
type figures struct {
	// Measured figures, which a benchmark writes anew.
	Figures struct {
		OneTimePassword figure `json:"one_time_password"`
		PendingRequest  figure `json:"pending_request"`
		Activation      figure `json:"activation"`
		Logs            figure `json:"logs"`
		RedisCall       figure `json:"redis_call"`
		Registration    figure `json:"registration"`
		Owner           figure `json:"owner"`
	} `json:"figures"`
	// What is chosen or known of the load.
	Assumptions struct {
		StoreCalls           figure `json:"store_calls_per_activation"`
		Commands             figure `json:"commands_per_activation"`
		OneTimePasswords     figure `json:"share_of_one_time_passwords"`
		ServerTime           figure `json:"server_time"`
		ServerThreads        figure `json:"server_threads"`
		Cores                figure `json:"cores_per_node"`
		RegistrationLifetime figure `json:"registration_lifetime"`
		RequestLifetime      figure `json:"request_lifetime"`
		Decoys               figure `json:"decoys_per_node"`
		ShardMemory          figure `json:"shard_memory"`
		Use                  figure `json:"use"`
	} `json:"assumptions"`
}

// read decodes the figures. Each must be there and be positive, with its unit and its source.
func read(text []byte) (*figures, error) {
	f := new(figures)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return nil, err
	}
	var missing []string
	f.each(func(name string, v figure) {
		if v.Value <= 0 || v.Unit == "" || v.Source == "" {
			missing = append(missing, name)
		}
	})
	if missing != nil {
		return nil, fmt.Errorf("no value above 0, unit or source: %s", strings.Join(missing, ", "))
	}
	return f, nil
}

// load is what phones and the bank do at the busiest time.
type load struct {
	devices     float64
	activations float64 // per second
	requests    float64 // per second, besides the calls of activations
}

// need is what a load needs.
type need struct {
	cores       float64 // of gateways, busy
	nodes       int     // with one to spare
	redisCores  float64 // busy
	memory      float64 // of Redis, in bytes
	shards      int
	connections float64 // to authentication servers, busy
	servers     int     // authentication servers
}

// pending is the share of requests that retrieve or complete a login or signature.
func (f *figures) pending() float64 { return 1 - f.Assumptions.OneTimePasswords.Value }

// perRequest is the mean time of a core for a request, in seconds.
func (f *figures) perRequest() float64 {
	m := f.Figures
	mean := f.Assumptions.OneTimePasswords.Value*m.OneTimePassword.Value + f.pending()*m.PendingRequest.Value
	return mean * m.Logs.Value / 1e6
}

// need computes what a load needs.
func (f *figures) need(l load) need {
	m, a := f.Figures, f.Assumptions
	use := a.Use.Value
	var n need
	n.cores = l.requests*f.perRequest() + l.activations*m.Activation.Value*m.Logs.Value/1e6
	n.nodes = ceil(n.cores/(a.Cores.Value*use)) + 1
	n.redisCores = (l.requests*f.pending() + l.activations*a.StoreCalls.Value) * m.RedisCall.Value / 1e6
	// Half of the pending requests retrieve, and may be abandoned.
	n.memory = l.activations*a.RegistrationLifetime.Value*m.Registration.Value +
		l.requests*f.pending()/2*a.RequestLifetime.Value*m.Owner.Value + float64(n.nodes)*a.Decoys.Value
	// redis-server uses one core.
	n.shards = max(ceil(n.redisCores/use), ceil(n.memory/(a.ShardMemory.Value*use)))
	n.connections = (l.requests + l.activations*a.Commands.Value) * a.ServerTime.Value / 1e3
	n.servers = ceil(n.connections / (a.ServerThreads.Value * use))
	return n
}

func ceil(x float64) int { return int(math.Ceil(x)) }

// loads are the rows of the first table.
func loads() (all []load) {
	for _, devices := range []float64{1e6, 10e6, 100e6} {
		for _, activations := range []float64{1, 10, 100} {
			all = append(all, load{devices, activations, 1000})
		}
	}
	return all
}

// needs returns the first table.
func (f *figures) needs() string {
	var b strings.Builder
	b.WriteString("| devices | activations/s | to activate all takes | requests/s | per device and day | nodes | Redis: shards | memory | busy connections to servers | servers |\n" +
		"|---|---|---|---|---|---|---|---|---|---|\n")
	for _, l := range loads() {
		n := f.need(l)
		fmt.Fprintf(&b, "| %.0f million | %.0f | %s | %.0f | %s | %d | %d (%s of a core) | %.0f MB | %.0f | %d |\n",
			l.devices/1e6, l.activations, days(l.devices/l.activations), l.requests, significant(l.requests*86400/l.devices),
			n.nodes, n.shards, percent(n.redisCores), n.memory/1e6, n.connections, n.servers)
	}
	return b.String()
}

// limits returns the second table: what one of each can do, the least first.
func (f *figures) limits() string {
	m, a := f.Figures, f.Assumptions
	var b strings.Builder
	b.WriteString("| one of these | is busy all the time with | |\n|---|---|---|\n")
	fmt.Fprintf(&b, "| authentication server with %.0f threads | %.0f commands/s | its own time for a command, %.0f ms, decides |\n",
		a.ServerThreads.Value, a.ServerThreads.Value*1e3/a.ServerTime.Value, a.ServerTime.Value)
	fmt.Fprintf(&b, "| core of a gateway | %.0f requests/s, or %.0f activations/s | %.0f and %.0f µs, with logs |\n",
		1/f.perRequest(), 1e6/(m.Activation.Value*m.Logs.Value), f.perRequest()*1e6, m.Activation.Value*m.Logs.Value)
	fmt.Fprintf(&b, "| shard of Redis | %.0f calls/s that use the store | %.0f µs |\n", 1e6/m.RedisCall.Value, m.RedisCall.Value)
	fmt.Fprintf(&b, "| GB of Redis | %.0f abandoned registrations/s, or %.0f abandoned requests/s | %.0f and %.0f bytes, for %.0f and %.0f s |\n",
		1e9/m.Registration.Value/a.RegistrationLifetime.Value, 1e9/m.Owner.Value/a.RequestLifetime.Value,
		m.Registration.Value, m.Owner.Value, a.RegistrationLifetime.Value, a.RequestLifetime.Value)
	return b.String()
}

// inputs returns the third table: the figures.
func (f *figures) inputs() string {
	var b strings.Builder
	b.WriteString("| figure | value | | from |\n|---|---|---|---|\n")
	f.each(func(name string, v figure) {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, strconv.FormatFloat(v.Value, 'f', -1, 64), v.Unit, v.Source)
	})
	return b.String()
}

// each calls do for every figure, by the names in the file and in their order there.
func (f *figures) each(do func(name string, v figure)) {
	m, a := f.Figures, f.Assumptions
	for _, v := range []struct {
		name string
		figure
	}{
		{"one_time_password", m.OneTimePassword},
		{"pending_request", m.PendingRequest},
		{"activation", m.Activation},
		{"logs", m.Logs},
		{"redis_call", m.RedisCall},
		{"registration", m.Registration},
		{"owner", m.Owner},
		{"store_calls_per_activation", a.StoreCalls},
		{"commands_per_activation", a.Commands},
		{"share_of_one_time_passwords", a.OneTimePasswords},
		{"server_time", a.ServerTime},
		{"server_threads", a.ServerThreads},
		{"cores_per_node", a.Cores},
		{"registration_lifetime", a.RegistrationLifetime},
		{"request_lifetime", a.RequestLifetime},
		{"decoys_per_node", a.Decoys},
		{"shard_memory", a.ShardMemory},
		{"use", a.Use},
	} {
		do(v.name, v.figure)
	}
}

// days returns a time in seconds as a text.
func days(seconds float64) string {
	switch {
	case seconds < 2*86400:
		return fmt.Sprintf("%.0f h", seconds/3600)
	case seconds < 1000*86400:
		return fmt.Sprintf("%.0f days", seconds/86400)
	}
	return fmt.Sprintf("%.0f years", seconds/86400/365)
}

func significant(x float64) string { return strconv.FormatFloat(x, 'g', 2, 64) }

func percent(x float64) string { return fmt.Sprintf("%.0f %%", 100*x) }

// write replaces the tables in a document, each of which stands between two comments.
func (f *figures) write(document string, tables ...string) (string, error) {
	for _, name := range tables {
		table := map[string]func() string{"needs": f.needs, "limits": f.limits, "inputs": f.inputs}[name]()
		begin, end := "<!-- scaling: "+name+", written by `go generate ./internal/scaling` from here -->\n", "<!-- scaling: "+name+" to here -->\n"
		var err error
		if document, err = marks.Replace(document, begin, end, table); err != nil {
			return "", err
		}
	}
	return document, nil
}
