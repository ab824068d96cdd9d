package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/figures"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

var benchGateway = flag.String("bench-gateway", "", "run TestBenchGateway at full length and write its tables between the marks in this `file`")

const (
	benchBegin = "<!-- bench-gateway: written by `make bench-gateway` from here -->\n"
	benchEnd   = "<!-- bench-gateway: to here -->\n"

	// benchWorkers wait for an answer before they send the next request.
	benchWorkers = 4
	// benchClients are the connections of requests that arrive at a fixed rate.
	benchClients = 16
)

// benchCase is one sequence of calls.
type benchCase struct {
	name string
	// commands are what the authentication server gets, and what a plain proxy is to pass on.
	commands []string
	// play makes the calls at a gateway.
	play func(c *benchClient, number int64) error
	// fresh has each call make a connection of its own.
	fresh bool
	// latency also measures the time that the sequence takes at a fixed rate.
	latency bool
}

const registerCommand, addDeviceCommand, activateCommand = "PROVISIONCMD_MDL_REGISTER", "PROVISIONCMD_MDL_ADD_DEVICE", "PROVISIONCMD_MDL_ACTIVATE"

var benchCases = []benchCase{
	{name: "one-time password", commands: []string{"authUser"}, play: (*benchClient).login, latency: true},
	{name: "signature: retrieve, complete", commands: []string{testbed.Signature.RetrieveCommand, testbed.Signature.CompleteCommand}, play: (*benchClient).sign, latency: true},
	{name: "signature: retrieve, cancel", commands: []string{testbed.Signature.RetrieveCommand, testbed.Signature.CancelCommand}, play: (*benchClient).cancel},
	{name: "activation: 5 calls, 3 commands", commands: []string{registerCommand, addDeviceCommand, activateCommand}, play: (*benchClient).activate},
	{name: "one-time password, new connection", commands: []string{"authUser"}, play: (*benchClient).login, fresh: true},
}

// recorded is a command and the answer of the simulated server.
type recorded struct {
	command, answer []byte
	contentType     string
}

// bench is a comparison of gateways with plain proxies.
type bench struct {
	certs    sandbox.Certificates
	server   *testbed.Server
	targets  []*benchTarget // the reference first
	missing  []string       // proxies that this machine lacks
	recorded map[string]recorded
	device   *sandbox.Authenticator
	number   atomic.Int64 // of the last sequence
}

// benchTarget is a process to measure.
type benchTarget struct {
	name  string
	proxy testbed.Proxy
	// gateway says that it understands the calls.
	gateway bool
	admin   *testbed.Gateway
}

// benchClient is one connection to a target.
type benchClient struct {
	b      *bench
	target *benchTarget
	http   *http.Client
}

// commandName returns the name of a command in SOAP.
func commandName(body []byte) string {
	between := func(before, after string) string {
		_, rest, _ := bytes.Cut(body, []byte(before))
		name, _, _ := bytes.Cut(rest, []byte(after))
		return string(name)
	}
	if name := between("<cmd>", "</cmd>"); bytes.Contains(body, []byte("<cmd>")) {
		return name
	}
	_, name, _ := strings.Cut(between("Body><", ">"), ":")
	return name
}

// newBench starts all processes. The simulated server answers from what it answered to a real
// device, so that neither pending requests nor devices have to be made for every call.
func newBench(t *testing.T) *bench {
	b := &bench{certs: testbed.Certificates(t), recorded: map[string]recorded{}}
	b.server = testbed.StartServer(t, b.certs)
	plain := func(name string, start func(testing.TB, sandbox.Certificates, string) testbed.Proxy) {
		b.targets = append(b.targets, &benchTarget{name: name, proxy: start(t, b.certs, b.server.URL)})
	}
	plain("Caddy", testbed.StartPlainCaddy)
	plain("Caddy again", testbed.StartPlainCaddy)
	for _, store := range []string{"embedded", "Redis"} {
		g := testbed.Configure(t, b.certs, b.server.URL, func(dsapp testbed.Object) {
			if store == "Redis" {
				dsapp["store"] = testbed.RedisStore(redistest.Start(t).Addr())
			}
		})
		g.LogLevel("WARN")
		delete(g.HTTPServer(), "logs")
		g.Start(t)
		b.targets = append(b.targets, &benchTarget{name: "gateway, " + store, proxy: testbed.Proxy{URL: g.URL, Pid: g.Pid()}, gateway: true, admin: g})
	}
	for _, other := range []struct {
		name  string
		start func(testing.TB, sandbox.Certificates, string) (testbed.Proxy, bool)
	}{{"nginx", testbed.StartNginx}, {"HAProxy", testbed.StartHAProxy}} {
		if proxy, found := other.start(t, b.certs, b.server.URL); found {
			b.targets = append(b.targets, &benchTarget{name: other.name, proxy: proxy})
		} else {
			b.missing = append(b.missing, other.name)
		}
	}
	b.record(t)
	return b
}

// record has a device use every command once, and answers them like that from then on. Only
// gateways that activate devices still reach the simulated server.
func (b *bench) record(t *testing.T) {
	var mu sync.Mutex // commands can arrive at the same time
	b.server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		command := []byte(testbed.ReadCommand(r))
		answer := httptest.NewRecorder()
		b.server.Server.ServeHTTP(answer, r)
		mu.Lock()
		b.recorded[commandName(command)] = recorded{command, answer.Body.Bytes(), answer.Header().Get("Content-Type")}
		mu.Unlock()
		w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
		return true
	})
	g := b.targets[slices.IndexFunc(b.targets, func(d *benchTarget) bool { return d.gateway })].admin
	b.device = g.ActivatedDevice(t)
	_, err := g.Phone().Authenticate(t.Context(), b.device)
	require.NoError(t, err)
	for _, end := range []func(key, message string){
		func(key, message string) {
			signature, err := b.device.Sign(message)
			require.NoError(t, err)
			status, answer := g.Complete(t, testbed.Signature, key, signature)
			require.Equal(t, http.StatusOK, status, answer)
		},
		func(key, _ string) {
			status, answer := g.Cancel(t, testbed.Signature, testbed.FrontEndKey, b.device.SerialNumber, key)
			require.Equal(t, testbed.Success, testbed.Answer(status, answer))
		},
	} {
		key, _ := testbed.Ask(t, b.server, testbed.Signature, b.device)
		end(key, g.MustRetrieve(t, testbed.Signature, testbed.FrontEndKey, b.device.SerialNumber, key))
	}
	for _, c := range benchCases {
		for _, command := range c.commands {
			require.Contains(t, b.recorded, command)
		}
	}
	b.server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		command := commandName([]byte(testbed.ReadCommand(r)))
		if strings.HasPrefix(command, "PROVISIONCMD_") && r.URL.Path != replayPath {
			return false
		}
		known, ok := b.recorded[command]
		if !ok {
			return false
		}
		w.Header().Set("Content-Type", known.contentType)
		_, _ = w.Write(known.answer)
		return true
	})
}

// replayPath is where plain proxies send commands.
const replayPath = "/replay"

// clients returns connections of a protocol to a target.
func (b *bench) clients(t *testing.T, target *benchTarget, protocol string, fresh bool, count int) []*benchClient {
	clients := make([]*benchClient, count)
	for i := range clients {
		c := testbed.NewClient(t, b.certs.Authority, "")
		transport := c.Transport.(*http.Transport)
		transport.DisableKeepAlives = fresh
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(protocol == "h1")
		transport.Protocols.SetHTTP2(protocol == "h2")
		t.Cleanup(transport.CloseIdleConnections)
		clients[i] = &benchClient{b, target, c}
	}
	return clients
}

// do plays a case.
func (c *benchClient) do(played *benchCase) error {
	if c.target.gateway {
		return played.play(c, c.b.number.Add(1))
	}
	for _, command := range played.commands {
		known := c.b.recorded[command]
		r, err := http.NewRequest(http.MethodPost, c.target.proxy.URL+replayPath, bytes.NewReader(known.command))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "text/xml; charset=utf-8")
		r.Header["SOAPAction"] = []string{`""`}
		if err := c.send(r, nil); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	return nil
}

// send sends a request. The answer must have status 200 and contain a text.
func (c *benchClient) send(r *http.Request, want []byte) error {
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Contains(body, want)) {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return err
}

// call calls a service of a gateway, which must succeed.
func (c *benchClient) call(path, body string) error {
	r, err := http.NewRequest(http.MethodPost, c.target.proxy.URL+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(testbed.FrontEndKey, "")
	return c.send(r, []byte(`"returnCode":0`))
}

func (c *benchClient) login(int64) error {
	return c.call(testbed.LoginPath, fmt.Sprintf(`{"userID":%q,"domain":%q,"password":"123456"}`, c.b.device.UserID, c.b.device.Domain))
}

// sign approves a request that no other sequence is about.
func (c *benchClient) sign(number int64) error {
	key := fmt.Sprintf("%08X", number)
	if err := c.retrieve(key); err != nil {
		return err
	}
	return c.call(testbed.Signature.CompletePath, fmt.Sprintf(`{"userID":%q,"domain":%q,"requestKey":%q,"signature":"12345678"}`, c.b.device.UserID, c.b.device.Domain, key))
}

func (c *benchClient) cancel(number int64) error {
	key := fmt.Sprintf("%08X", number)
	if err := c.retrieve(key); err != nil {
		return err
	}
	return c.call(testbed.Signature.CancelPath, fmt.Sprintf(`{"serialNumber":%q,"requestKey":%q}`, c.b.device.SerialNumber, key))
}

func (c *benchClient) retrieve(key string) error {
	return c.call(testbed.Signature.RetrievePath, fmt.Sprintf(`{"serialNumber":%q,"requestKey":%q}`, c.b.device.SerialNumber, key))
}

// activate registers one of many users and activates a device.
func (c *benchClient) activate(number int64) error {
	phone := sandbox.Phone{BaseURL: c.target.proxy.URL, APIKey: testbed.FrontEndKey, Client: c.http}
	ctx := context.Background()
	registered, err := phone.RegisterUser(ctx, testbed.BackEndKey, sandbox.UserRegistration{
		UserID: testbed.ActivationUser(int(number % testbed.MaxWorkers)), Domain: testbed.Domain, StaticPassword: testbed.StaticPassword,
	})
	if err != nil {
		return err
	}
	_, err = phone.Activate(ctx, registered.RegistrationIdentifier, registered.ActivationPassword)
	return err
}

// closed plays a case in a closed loop for a while, and returns the processor time that the
// target used for each sequence and the number of sequences per second.
func (b *bench) closed(t *testing.T, played *benchCase, clients []*benchClient, length time.Duration) (each time.Duration, rate float64) {
	clients = clients[:benchWorkers]
	var count atomic.Int64
	run := func(length time.Duration) time.Duration {
		began := time.Now()
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				for again := true; again; again = time.Since(began) < length {
					if err := c.do(played); err != nil {
						t.Errorf("%s at %s: %v", played.name, c.target.name, err)
						return
					}
					count.Add(1)
				}
			})
		}
		wg.Wait()
		return time.Since(began)
	}
	run(0) // connects
	count.Store(0)
	pid := clients[0].target.proxy.Pid
	before := testbed.ProcessorTime(t, pid)
	took := run(length)
	used := testbed.ProcessorTime(t, pid) - before
	require.False(t, t.Failed())
	return used / time.Duration(count.Load()), float64(count.Load()) / took.Seconds()
}

// fixed plays a case at a fixed rate for a while, and returns the seconds that each sequence
// took from the moment when it should have begun.
func (b *bench) fixed(t *testing.T, played *benchCase, clients []*benchClient, rate float64, length time.Duration) []float64 {
	count := max(1, int(rate*length.Seconds()))
	due := make(chan time.Time, count)
	took := make([]float64, count)
	var next atomic.Int64
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for intended := range due {
				if err := c.do(played); err != nil {
					t.Errorf("%s at %s: %v", played.name, c.target.name, err)
					return
				}
				took[next.Add(1)-1] = time.Since(intended).Seconds()
			}
		})
	}
	began := time.Now()
	for i := range count {
		intended := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		time.Sleep(time.Until(intended))
		due <- intended
	}
	close(due)
	wg.Wait()
	require.False(t, t.Failed())
	return took
}

// benchRow has what was measured of one case and protocol: for each target, a value of every
// round.
type benchRow struct {
	played        *benchCase
	protocol      string
	cpu, p50, p99 map[*benchTarget][]float64
	rate          float64 // of arrivals
}

// measure measures a case. The targets take turns, in the other order in every second round.
func (b *bench) measure(t *testing.T, played *benchCase, protocol string, rounds, latencyRounds int, length time.Duration) *benchRow {
	row := &benchRow{played: played, protocol: protocol, cpu: map[*benchTarget][]float64{}, p50: map[*benchTarget][]float64{}, p99: map[*benchTarget][]float64{}}
	clients := map[*benchTarget][]*benchClient{}
	for _, target := range b.targets {
		clients[target] = b.clients(t, target, protocol, played.fresh, benchClients)
		defer func() {
			for _, c := range clients[target] {
				c.http.CloseIdleConnections()
			}
		}()
	}
	order := slices.Clone(b.targets)
	turns := func(count int, turn func(*benchTarget)) {
		for range count {
			for _, target := range order {
				turn(target)
			}
			slices.Reverse(order)
		}
	}
	rates := map[*benchTarget][]float64{}
	turns(rounds, func(target *benchTarget) {
		each, rate := b.closed(t, played, clients[target], length)
		row.cpu[target] = append(row.cpu[target], each.Seconds())
		rates[target] = append(rates[target], rate)
	})
	if !played.latency {
		return row
	}
	// The same rate for all: half of what the slowest has managed.
	for _, of := range rates {
		if median := figures.QuartilesOf(of).Median / 2; row.rate == 0 || median < row.rate {
			row.rate = median
		}
	}
	turns(latencyRounds, func(target *benchTarget) {
		took := b.fixed(t, played, clients[target], row.rate, 8*length)
		row.p50[target] = append(row.p50[target], figures.Quantile(took, 0.5))
		row.p99[target] = append(row.p99[target], figures.Quantile(took, 0.99))
	})
	return row
}

// ratios returns a target's values as ratios to the reference in the same round.
func (b *bench) ratios(values map[*benchTarget][]float64, target *benchTarget) figures.Quartiles {
	ratios := make([]float64, len(values[target]))
	for i, value := range values[target] {
		ratios[i] = value / values[b.targets[0]][i]
	}
	return figures.QuartilesOf(ratios)
}

// tables returns what was measured, in Markdown.
func (b *bench) tables(rows []*benchRow) string {
	head := []string{"processor time", "Caddy"}
	for _, target := range b.targets[1:] {
		head = append(head, target.name)
	}
	cpu := [][]string{head}
	latency := [][]string{append([]string{"latency: p50, p99"}, head[1:]...)}
	for _, row := range rows {
		name := row.played.name + ", " + map[string]string{"h1": "HTTP/1.1", "h2": "HTTP/2"}[row.protocol]
		reference := b.targets[0]
		line := []string{name, fmt.Sprintf("%.0f µs", 1e6*figures.Quantile(row.cpu[reference], 0.5))}
		for _, target := range b.targets[1:] {
			line = append(line, b.ratios(row.cpu, target).String())
		}
		cpu = append(cpu, line)
		if !row.played.latency {
			continue
		}
		line = []string{
			fmt.Sprintf("%s, %.0f/s", name, row.rate),
			fmt.Sprintf("%.2f, %.2f ms", 1e3*figures.Quantile(row.p50[reference], 0.5), 1e3*figures.Quantile(row.p99[reference], 0.5)),
		}
		for _, target := range b.targets[1:] {
			line = append(line, fmt.Sprintf("%s, %s", figures.Ratio(b.ratios(row.p50, target).Median), b.ratios(row.p99, target)))
		}
		latency = append(latency, line)
	}
	return figures.Markdown(cpu, false) + "\n" + figures.Markdown(latency, false)
}

// TestBenchGateway guards the comparison of the gateway with plain proxies: it measures one
// short round, in which every call succeeds. `make bench-gateway` runs it at full length.
func TestBenchGateway(t *testing.T) {
	rounds, latencyRounds, length := 1, 1, 5*time.Millisecond
	if *benchGateway != "" {
		rounds, latencyRounds, length = 15, 5, 250*time.Millisecond
	}
	b := newBench(t)
	before := figures.Load()
	var rows []*benchRow
	for i := range benchCases {
		for _, protocol := range []string{"h1", "h2"} {
			rows = append(rows, b.measure(t, &benchCases[i], protocol, rounds, latencyRounds, length))
		}
	}
	tables := b.tables(rows)
	for _, row := range rows {
		require.Contains(t, tables, row.played.name)
	}
	if *benchGateway == "" {
		return
	}
	commit, err := exec.CommandContext(t.Context(), "git", "log", "-1", "--format=%cs").Output()
	require.NoError(t, err)
	text := fmt.Sprintf("%s, %d cores; %s; sources of %s; load average before it %.1f.\n", figures.Processor(), runtime.NumCPU(), runtime.Version(), bytes.TrimSpace(commit), before)
	for _, name := range b.missing {
		text += name + " is not installed and was not measured.\n"
	}
	text += "\n" + tables
	t.Log(text)
	require.NoError(t, figures.Rewrite(*benchGateway, benchBegin, benchEnd, text))
}
