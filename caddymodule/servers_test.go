package caddymodule

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Configurations with the same authentication server share its state, so that a reload does
// not double the limits. A configuration that fails releases the states it acquired. The
// state ends with the last configuration.
func TestInstancesShareTheirState(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	const address = "https://load.example.com:8888/"
	open := func(extra ...Instance) (*AuthenticationServers, error) {
		s := &AuthenticationServers{Instances: append([]Instance{{Name: "primary", URL: address}}, extra...)}
		_, err := s.provision(ctx, slog.New(slog.DiscardHandler))
		return s, err
	}
	references := func() int {
		n, _ := statePool.References(address)
		return n
	}

	first, err := open()
	require.NoError(t, err)
	second, err := open(Instance{Name: "other", URL: "https://other.example.com:8888/"})
	require.NoError(t, err)
	assert.Equal(t, 2, references())
	written, err := open(Instance{Name: "same", URL: "https://LOAD.example.com:8888"})
	require.ErrorContains(t, err, "instances[1].url: is that of an earlier instance")
	written.close()
	assert.Equal(t, 2, references())

	failed, err := open(Instance{Name: "backup", URL: "http://not-https.example.com/"})
	require.Error(t, err)
	failed.close()
	assert.Equal(t, 2, references())

	first.close()
	first.close()
	assert.Equal(t, 1, references())
	second.close()
	assert.Zero(t, references())
}

// The defaults of the limits depend on the number of connections, so that an instance with
// few of them also serves every group. Configured limits apply unchanged.
func TestLimitsOfInstances(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		connections int
		reserved    *int
		waiting     int
		queue       *int
		want        [4]int
		problem     string
	}{
		{want: [4]int{30, 6, 10, 100}},
		{connections: 1, want: [4]int{1, 0, 1, 100}},
		{connections: 2, want: [4]int{2, 0, 1, 100}},
		{connections: 4, want: [4]int{4, 0, 1, 100}},
		{connections: 5, want: [4]int{5, 1, 1, 100}},
		{connections: 6, want: [4]int{6, 1, 2, 100}},
		{connections: 29, want: [4]int{29, 5, 9, 100}},
		{connections: 31, want: [4]int{31, 6, 10, 100}},
		{connections: 10_000, want: [4]int{10_000, 6, 10, 100}},
		{reserved: new(0), waiting: 30, queue: new(0), want: [4]int{30, 0, 30, 0}},
		{reserved: new(29), want: [4]int{30, 29, 10, 100}},
		{connections: 3, reserved: new(2), waiting: 3, queue: new(100_000), want: [4]int{3, 2, 3, 100_000}},
		{reserved: new(30), problem: "reserved_connections: must be from 0 to 29, one less than max_connections"},
		{reserved: new(-1), problem: "reserved_connections: must be from 0 to 29, one less than max_connections"},
		{connections: 1, reserved: new(1), problem: "reserved_connections: must be from 0 to 0, one less than max_connections"},
		{waiting: 31, problem: "max_waiting: must be from 1 to 30, the number of max_connections"},
		{connections: 2, waiting: 3, problem: "max_waiting: must be from 1 to 2, the number of max_connections"},
		{waiting: -1, problem: "max_waiting: must be from 1 to 30, the number of max_connections"},
		{connections: 10_001, problem: "max_connections: must be from 1 to 10000"},
		{queue: new(100_001), problem: "max_queue: must be from 0 to 100000"},
	} {
		s := AuthenticationServers{MaxConnections: tt.connections, ReservedConnections: tt.reserved, MaxWaiting: tt.waiting, MaxQueue: tt.queue}
		i := s.instanceLimits()
		s.Instances = []Instance{{Name: "primary", URL: "https://limits.example.com/"}}
		_, err := s.provision(caddy.Context{}, slog.New(slog.DiscardHandler))
		s.close()
		if tt.problem != "" {
			require.EqualError(t, err, tt.problem)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, tt.want, [4]int{i.MaxConnections, i.ReservedConnections, i.MaxWaiting, i.MaxQueue})
	}
}

// The configured limits apply to each of two instances: logins that may wait for a person
// use max_waiting connections, and front ends leave the reserved connections free.
func TestLimitsReachInstances(t *testing.T) {
	t.Parallel()
	const connections, reserved, waiting = 6, 2, 1
	simulated := sandbox.New(sandbox.Options{Users: []sandbox.User{{Name: "jane.doe", StaticPassword: "a static password"}}})
	arrived, proceed := make(chan struct{}), make(chan struct{})
	servers := serversOf(t, &AuthenticationServers{
		MaxConnections: connections, ReservedConnections: new(reserved), MaxWaiting: waiting, MaxQueue: new(0),
	}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		if !bytes.Contains(body, []byte("PROVISIONCMD_MDL_REGISTER")) {
			arrived <- struct{}{}
			<-proceed
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		simulated.ServeHTTP(w, r)
	}))
	var calls sync.WaitGroup
	defer calls.Wait()
	defer close(proceed)
	// admitted makes count calls and returns how many of them reach an instance.
	admitted := func(count int, call func() error) (admitted int) {
		refused := make(chan struct{}, count)
		for range count {
			calls.Go(func() {
				if err := call(); errors.Is(err, authserver.ErrNotSent) {
					refused <- struct{}{}
				}
			})
		}
		for range count {
			select {
			case <-arrived:
				admitted++
			case <-refused:
			}
		}
		return admitted
	}
	assert.Equal(t, 2*waiting, admitted(5, func() error {
		_, _, err := authserver.Call(authserver.ForBackEnd(t.Context()), servers, authserver.Target{}, soap.AuthUser, soap.AuthUserRequest{UserID: "jane.doe", Password: "push"})
		return err
	}))
	assert.Equal(t, 2*(connections-reserved-waiting), admitted(20, func() error {
		_, _, err := authserver.Call(t.Context(), servers, authserver.Target{}, soap.AuthSignature, soap.AuthSignatureRequest{UserID: "jane.doe", RequestKey: "1", Signature: "123456"})
		return err
	}))
	_, _, err := authserver.Call(authserver.ForBackEnd(t.Context()), servers, authserver.Target{}, soap.MDLRegister, soap.MDLRegisterRequest{UserID: "jane.doe", StaticPassword: "a static password"})
	require.NoError(t, err)
}

// serversOf returns a client of two instances, a and b, which h serves. Its timeouts are
// long enough for a slow machine.
func serversOf(t *testing.T, s *AuthenticationServers, h http.Handler) *authserver.Servers {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	files := testCertificates(t)
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	require.NoError(t, err)
	for _, name := range []string{"a", "b"} {
		server := httptest.NewUnstartedServer(h)
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		server.StartTLS()
		t.Cleanup(server.Close)
		s.Instances = append(s.Instances, Instance{Name: name, URL: server.URL})
	}
	s.DialTimeout, s.Timeout = caddy.Duration(poll.Patience), caddy.Duration(poll.Patience)
	s.TLS = &reverseproxy.TLSConfig{HandshakeTimeout: caddy.Duration(poll.Patience), CARaw: json.RawMessage(`{"provider": "file", "pem_files": ["` + files.Authority + `"]}`)}
	t.Cleanup(s.close)
	servers, err := s.provision(ctx, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return servers
}

// Deployment and policy determine whether instances take turns, and whether a request is
// looked for on both of them.
func TestDeploymentAndPolicy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		deployment, policy string
		turns              bool
	}{
		{"", "", false},
		{"replicated", "", false},
		{"replicated", "first", false},
		{"replicated", "round_robin", true},
		{"shared_database", "", true},
		{"shared_database", "round_robin", true},
		{"shared_database", "first", false},
		{"", "round_robin", true},
	} {
		t.Run(tt.deployment+" "+tt.policy, func(t *testing.T) {
			t.Parallel()
			servers := serversOf(t, &AuthenticationServers{Deployment: tt.deployment, Policy: tt.policy}, sandbox.New(sandbox.Options{}))
			asked := make(map[string]bool)
			for range 4 {
				_, _, err := authserver.Call(t.Context(), servers, authserver.Target{}, soap.AuthUser, soap.AuthUserRequest{UserID: "nobody", Password: "123456"})
				refusal, ok := errors.AsType[*authserver.Refusal](err)
				require.True(t, ok, err)
				asked[refusal.Instance] = true
			}
			assert.Equal(t, tt.turns, len(asked) == 2, asked)
		})
	}
	// A request that one instance does not know is looked for on the other one, unless they
	// share a database.
	for deployment, calls := range map[string]int{"": 2, "replicated": 2, "shared_database": 1} {
		simulated := sandbox.New(sandbox.Options{})
		servers := serversOf(t, &AuthenticationServers{Deployment: deployment}, simulated)
		_, _, err := authserver.Call(t.Context(), servers, authserver.Target{Search: true}, soap.GetPreparedSecureChallenge, soap.RetrieveRequest{SerialNumber: "VDS1000000-1", Key: "1"})
		require.Error(t, err)
		assert.Equal(t, calls, simulated.Calls("getPreparedSecureChallenge"), deployment)
	}
}

// Each group of commands has its own component name, and attributes have the configured
// names.
func TestNamesOfComponentsAndAttributes(t *testing.T) {
	t.Parallel()
	user := sandbox.User{Name: "jane.doe", StaticPassword: "a static password", StandardLicenses: 2}
	for _, tt := range []struct {
		name       string
		components ComponentTypes
		want       [4]string
	}{
		{
			"defaults",
			ComponentTypes{},
			[4]string{"DIGIPASS Gateway Provisioning DP760", "Push Notification Client", "Push Notification Client", "Push Notification Client"},
		},
		{
			"configured",
			ComponentTypes{Provisioning: "P", Authentication: "A", Signature: "S", Notification: "N"},
			[4]string{"P", "A", "S", "N"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			simulated := sandbox.New(sandbox.Options{Users: []sandbox.User{user}, ComponentTypes: tt.want[:]})
			var sent string
			servers := serversOf(t, &AuthenticationServers{
				ComponentTypes: tt.components, Attributes: Attributes{EventReactivationCounter: "OUR_COUNTER"},
			}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				assert.NoError(t, err)
				sent = string(body)
				r.Body = io.NopCloser(bytes.NewReader(body))
				answer := httptest.NewRecorder()
				simulated.ServeHTTP(answer, r)
				w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
				_, _ = io.WriteString(w, strings.ReplaceAll(answer.Body.String(), "PROVFLD_EVENT_REACTIVATION_COUNTER", "OUR_COUNTER"))
			}))
			registered, _, err := authserver.Call(t.Context(), servers, authserver.Target{}, soap.Register, soap.RegisterRequest{UserID: form.RegisteredUser(user.Name), StaticPassword: form.StaticPassword(user.StaticPassword)})
			require.NoError(t, err)
			assert.NotEmpty(t, registered.EventReactivationCounter)
			assert.Contains(t, sent, ">"+tt.want[0]+"<")
			for i, call := range []func() error{
				func() error {
					_, _, err := authserver.Call(t.Context(), servers, authserver.Target{}, soap.AuthUser, soap.AuthUserRequest{UserID: form.UserID(user.Name), Password: "123456"})
					return err
				},
				func() error {
					_, _, err := authserver.Call(t.Context(), servers, authserver.Target{}, soap.AuthSignature, soap.AuthSignatureRequest{UserID: form.UserID(user.Name), RequestKey: "1", Signature: "123456"})
					return err
				},
				func() error {
					_, _, err := authserver.Call(t.Context(), servers, authserver.Target{}, soap.UpdateDevicePNID, soap.UpdateDevicePNIDRequest{UserID: form.UserID(user.Name), SerialNumber: "VDS1000000-1", DevicePNID: "00"})
					return err
				},
			} {
				require.Error(t, call())
				assert.Contains(t, sent, ">"+tt.want[1+i]+"<")
			}
		})
	}
}
