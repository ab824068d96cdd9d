package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/namespace"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// operate runs `caddy dsapp` with arguments, with the environment of a gateway.
func operate(t *testing.T, arguments ...string) (string, int) {
	t.Helper()
	env := append(testbed.Environment(t.TempDir()),
		"TEST_FRONT_END_KEY="+testbed.FrontEndKey, "TEST_BACK_END_KEY="+testbed.BackEndKey, "TEST_SEALING_KEY="+testbed.SealingKey, "TEST_EMPTY=")
	return testbed.Run(t, env, append([]string{"dsapp"}, arguments...)...)
}

// writeConfig writes the configuration of g to a file and returns its name.
func writeConfig(t *testing.T, g *testbed.Gateway) string {
	t.Helper()
	config, err := json.Marshal(g.Config)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "caddy.json")
	require.NoError(t, os.WriteFile(path, config, 0o600))
	return path
}

// tryConfig runs `caddy dsapp check` and returns what it found.
func tryConfig(t *testing.T, g *testbed.Gateway) []caddymodule.Finding {
	t.Helper()
	out, code := operate(t, "check", "--json", "--config", writeConfig(t, g))
	_, last, _ := strings.Cut(out, `{"ok":`)
	var result struct {
		OK       bool
		Findings []caddymodule.Finding
	}
	require.NoError(t, json.Unmarshal([]byte(`{"ok":`+last), &result), out)
	problems := 0
	for _, f := range result.Findings {
		assert.NotContains(t, f.Problem, "\n")
		assert.NotContains(t, f.Problem, "SECRET")
		if !f.Note {
			problems++
		}
	}
	assert.Equal(t, problems == 0, result.OK, out)
	assert.Equal(t, map[bool]int{true: 0, false: 1}[problems == 0], code, out)
	return result.Findings
}

// endingCertificate is a certificate of the authority of certs that ends after a time.
func endingCertificate(t *testing.T, certs sandbox.Certificates, after time.Duration) sandbox.Certificates {
	t.Helper()
	pair := issueCertificate(t, certs, true, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(after) }).Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	certs.Certificate, certs.Key = filepath.Join(dir, "ending.pem"), filepath.Join(dir, "ending.key")
	for path, block := range map[string]pem.Block{
		certs.Certificate: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		certs.Key:         {Type: "PRIVATE KEY", Bytes: key},
	} {
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&block), 0o600))
	}
	return certs
}

// Each finding is provoked once, in a configuration that has no other. The line names what
// was checked and says what to do.
func TestCheckFindings(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	other := testbed.Certificates(t)

	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	strict := httptest.NewUnstartedServer(http.NotFoundHandler())
	pair, err := tls.LoadX509KeyPair(certs.Certificate, certs.Key)
	require.NoError(t, err)
	strict.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	strict.StartTLS()
	t.Cleanup(strict.Close)
	ending := endingCertificate(t, certs, 29*24*time.Hour)
	endingServer := testbed.StartServer(t, ending)
	late := testbed.StartServer(t, certs)
	late.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Date", time.Now().Add(-7*time.Minute).UTC().Format(http.TimeFormat))
		return false
	})
	elsewhere := testbed.StartServer(t, certs)
	elsewhere.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "no such page", http.StatusNotFound)
		return true
	})

	file := func(t *testing.T, content string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	instance := func(dsapp testbed.Object) testbed.Object {
		return dsapp["authentication_servers"].(testbed.Object)["instances"].([]testbed.Object)[0]
	}
	redis := func(t *testing.T, dsapp testbed.Object, args ...string) *redistest.Server {
		t.Helper()
		r := redistest.Start(t, args...)
		dsapp["store"] = testbed.RedisStore(r.Addr())
		return r
	}
	permit := func(t *testing.T, dsapp testbed.Object, rules ...string) {
		t.Helper()
		r := redis(t, dsapp)
		r.Command(t, append([]string{"ACL", "SETUSER", "gateway", "on", ">a-password", "~dsapp:*", "-@all"}, rules...)...)
		store := dsapp["store"].(testbed.Object)
		store["username"], store["password"] = "gateway", "a-password"
	}
	documented := strings.Fields("+eval +evalsha +wait +time +get +set +getrange +setrange +del +pexpireat +hget +hmget +hset +hdel +hexists +hincrby " +
		"+zadd +zrange +zrem +zrevrangebyscore +zremrangebyscore +zremrangebyrank")

	for _, tc := range []struct {
		name  string
		edit  func(t *testing.T, g *testbed.Gateway, dsapp testbed.Object)
		check string
		want  []string
		note  bool
	}{
		{name: "unknown name", check: "dns", want: []string{"no-such-host.invalid does not resolve", "/etc/hosts"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			instance(dsapp)["url"] = "https://no-such-host.invalid:8888/"
		}},
		{name: "nobody listens", check: "connection", want: []string{"connection refused", "start the server"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			instance(dsapp)["url"] = "https://" + freeport.Address(t)
		}},
		{name: "wrong authority", check: "tls", want: []string{"authentication_servers.tls.ca"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			dsapp["authentication_servers"].(testbed.Object)["tls"] = testbed.Object{"ca": testbed.Object{"provider": "file", "pem_files": []string{other.Authority}}}
		}},
		{name: "wrong name", check: "tls", want: []string{"not for another.example, but for", "tls.server_name"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			dsapp["authentication_servers"].(testbed.Object)["tls"].(testbed.Object)["server_name"] = "another.example"
		}},
		{name: "no client certificate", check: "tls", want: []string{"no client certificate", "tls.client_certificate_file"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			instance(dsapp)["url"] = strict.URL
		}},
		{name: "certificate of the server ends", check: "tls", want: []string{"certificate of the server ends on", "renew it there"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			instance(dsapp)["url"] = endingServer.URL
		}},
		{name: "client certificate ends", check: "tls", want: []string{"client certificate of the gateway ends on", "caddy reload --force"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			options := dsapp["authentication_servers"].(testbed.Object)["tls"].(testbed.Object)
			options["client_certificate_file"], options["client_certificate_key_file"] = ending.Certificate, ending.Key
		}},
		{name: "certificate of the site ends", check: "tls", want: []string{"the certificate ends on", "caddy reload --force"}, edit: func(_ *testing.T, g *testbed.Gateway, _ testbed.Object) {
			g.Config["apps"].(testbed.Object)["tls"] = testbed.Object{"certificates": testbed.Object{"load_files": []testbed.Object{
				{"certificate": certs.Certificate, "key": certs.Key},
				{"certificate": ending.Certificate, "key": ending.Key},
			}}}
		}},
		{name: "no TLS", check: "tls", want: []string{"does not speak TLS"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			instance(dsapp)["url"] = strings.Replace(plain.URL, "http", "https", 1)
		}},
		{name: "wrong path", check: "connection", want: []string{"404", "check the path"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			instance(dsapp)["url"] = elsewhere.URL
		}},
		{name: "component type of the provisioning", check: "component_type", want: []string{`"Nobody" (STAT_`, "component_types.provisioning"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			dsapp["authentication_servers"].(testbed.Object)["component_types"] = testbed.Object{"provisioning": "Nobody"}
		}},
		{name: "component type of signatures", check: "component_type", want: []string{`"Nobody" (STAT_`, "component_types.signature"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			dsapp["authentication_servers"].(testbed.Object)["component_types"] = testbed.Object{"signature": "Nobody"}
		}},
		{name: "clock", check: "clock", want: []string{"ahead of that of the instance", "NTP"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			instance(dsapp)["url"] = late.URL
		}},

		{name: "missing file", check: "placeholder", want: []string{"/nowhere/key does not exist"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			dsapp["sealing_keys"] = []string{"{file./nowhere/key}"}
		}},
		{name: "empty file", check: "placeholder", want: []string{"is empty: write the secret"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			dsapp["sealing_keys"] = []string{"{file." + file(t, "\n") + "}"}
		}},
		{name: "missing variable", check: "placeholder", want: []string{"NO_SUCH_VARIABLE is not set"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			dsapp["sealing_keys"] = []string{"{env.NO_SUCH_VARIABLE}"}
		}},
		{name: "empty variable", check: "placeholder", want: []string{"TEST_EMPTY is empty"}, edit: func(_ *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			dsapp["sealing_keys"] = []string{"{env.TEST_EMPTY}"}
		}},
		{name: "wrong value", check: "configuration", want: []string{"sealing_keys[0]", "64 hex digits"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			dsapp["sealing_keys"] = []string{"{file." + file(t, "SECRET") + "}"}
		}},
		{name: "missing certificate of the site", check: "configuration", want: []string{"/nowhere/certificate"}, edit: func(_ *testing.T, g *testbed.Gateway, _ testbed.Object) {
			g.Config["apps"].(testbed.Object)["tls"] = testbed.Object{"certificates": testbed.Object{"load_files": []testbed.Object{
				{"certificate": "/nowhere/certificate", "key": certs.Key},
			}}}
		}},

		{name: "no Redis", check: "redis", want: []string{"the first command, to reserve room, fails", "start the server"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			dsapp["store"] = testbed.RedisStore(freeport.Address(t))
		}},
		{name: "wrong password", check: "redis", want: []string{"WRONGPASS", "correct `username` and `password`"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			permit(t, dsapp, documented...)
			dsapp["store"].(testbed.Object)["password"] = "SECRET"
		}},
		{name: "missing right", check: "redis", want: []string{"listing the requests of a device fails", "permit the commands"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			permit(t, dsapp, append(documented, "+info", "-zrevrangebyscore")...)
		}},
		{name: "missing right to remove", check: "redis", want: []string{"removing the owner of a request fails", "permit the commands"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			permit(t, dsapp, append(documented, "+info", "-zrem")...)
		}},
		{name: "info is not permitted", check: "redis", want: []string{"permit +info"}, note: true, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			permit(t, dsapp, documented...)
		}},
		{name: "eviction", check: "redis", want: []string{"maxmemory-policy is allkeys-lru", "noeviction"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			redis(t, dsapp, "--maxmemory-policy", "allkeys-lru")
		}},
		{name: "no room", check: "redis", want: []string{"MiB of maxmemory are free", "raise maxmemory"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			redis(t, dsapp, "--maxmemory", "32mb")
		}},

		{name: "damaged file", check: "store", want: []string{"move the file aside"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			path := filepath.Join(t.TempDir(), "dsapp.db")
			s, err := embedded.Open(path, embedded.Options{})
			require.NoError(t, err)
			require.NoError(t, s.Close())
			require.NoError(t, os.Truncate(path, 10_000))
			dsapp["store"].(testbed.Object)["path"] = path
		}},
		{name: "readable key file", check: "store", want: []string{"group or others have access"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			path := dsapp["store"].(testbed.Object)["path"].(string)
			require.NoError(t, os.WriteFile(embedded.KeyPath(path), []byte(testbed.SealingKey+"\n"), 0o644))
		}},
		{name: "file in use", check: "store", note: true, want: []string{"another process"}, edit: func(t *testing.T, _ *testbed.Gateway, dsapp testbed.Object) {
			s, err := embedded.Open(dsapp["store"].(testbed.Object)["path"].(string), embedded.Options{})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, s.Close()) })
		}},
		{name: "port in use", check: "listen", want: []string{"another process uses the port", "ss -ltnp"}, edit: func(t *testing.T, g *testbed.Gateway, _ testbed.Object) {
			l, err := net.Listen("tcp", strings.TrimPrefix(g.URL, "https://"))
			require.NoError(t, err)
			t.Cleanup(func() { _ = l.Close() })
		}},
		{name: "address of another machine", check: "listen", want: []string{"does not have the address"}, edit: func(_ *testing.T, g *testbed.Gateway, _ testbed.Object) {
			g.HTTPServer()["listen"] = []string{"192.0.2.1:8443"}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g := testbed.Configure(t, certs, server.URL, nil)
			tc.edit(t, g, g.App())
			found := tryConfig(t, g)
			var matching []caddymodule.Finding
			for _, f := range found {
				if f.Check == "system" {
					continue // that of the machine
				}
				matching = append(matching, f)
			}
			require.Len(t, matching, 1, "%v", found)
			assert.Equal(t, tc.check, matching[0].Check, "%v", found)
			assert.Equal(t, tc.note, matching[0].Note)
			for _, want := range tc.want {
				assert.Contains(t, matching[0].Problem, want)
			}
			t.Logf("%s: %s", matching[0].Subject, matching[0].Problem)
		})
	}
}

// A replica can be written to by nobody, and is told as what it is.
func TestCheckReplica(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	master := redistest.Start(t)
	host, port, err := net.SplitHostPort(master.Addr())
	require.NoError(t, err)
	replica := redistest.Start(t, "--replicaof", host, port)
	g := testbed.Configure(t, certs, server.URL, func(dsapp testbed.Object) { dsapp["store"] = testbed.RedisStore(replica.Addr()) })
	var problems []string
	for _, f := range tryConfig(t, g) {
		problems = append(problems, f.Problem)
	}
	assert.Contains(t, strings.Join(problems, "\n"), "this is a replica")
}

// A disk without room is found.
func TestCheckFullDisk(t *testing.T) {
	if !namespace.Inside() {
		t.Skip("no mount namespace")
	}
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	folder := namespace.SmallDisk(t, 16<<20)
	g := testbed.Configure(t, certs, server.URL, func(dsapp testbed.Object) {
		dsapp["store"].(testbed.Object)["path"] = filepath.Join(folder, "dsapp.db")
	})
	found := tryConfig(t, g)
	require.NotEmpty(t, found)
	assert.Equal(t, "disk", found[0].Check)
	assert.Contains(t, found[0].Problem, "free some space")
}

// The kernel setting that resets connections at a reload is found. The test changes it in the
// network of these tests only, and runs before those that run in parallel.
func TestCheckKernel(t *testing.T) {
	testbed.NeedKeptConnections(t)
	const setting = "/proc/sys/net/ipv4/tcp_migrate_req"
	require.NoError(t, os.WriteFile(setting, []byte("0"), 0))
	defer func() { require.NoError(t, os.WriteFile(setting, []byte("1"), 0)) }()
	certs := testbed.Certificates(t)
	found := tryConfig(t, testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, nil))
	require.Len(t, found, 1, "%v", found)
	assert.Equal(t, "system", found[0].Check)
	assert.Contains(t, found[0].Problem, "set it to 1")
}

// A sound configuration has no finding, without a running gateway and beside one, whose ports
// and store are in use. The check leaves nothing on Redis.
func TestCheckSound(t *testing.T) {
	t.Parallel()
	testbed.NeedKeptConnections(t)
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	redis := redistest.Start(t)
	g := testbed.Configure(t, certs, server.URL, func(dsapp testbed.Object) { dsapp["store"] = testbed.RedisStore(redis.Addr()) })
	assert.Empty(t, tryConfig(t, g))
	left := redis.Command(t, "KEYS", "*")
	assert.NotContains(t, left, "check-")
	g.Start(t)
	assert.Empty(t, tryConfig(t, g))
	out, code := operate(t, "check", "--config", writeConfig(t, g))
	assert.Equal(t, 0, code)
	assert.Contains(t, out, "no problem found")

	embedded := testbed.StartGateway(t, certs, server.URL, nil)
	embedded.Register(t)
	for _, f := range tryConfig(t, embedded) {
		assert.True(t, f.Note, "%v", f)
	}
	_, code = operate(t, "check", "--config", filepath.Join(t.TempDir(), "nothing.json"))
	assert.Equal(t, 2, code)
}

// decode runs a command with --json and decodes what it prints.
func decode[T any](t *testing.T, g *testbed.Gateway, arguments ...string) (answer T) {
	t.Helper()
	out, code := operate(t, append(arguments, "--json", "--address", g.Admin)...)
	require.Equal(t, 0, code, out)
	require.NoError(t, json.Unmarshal([]byte(out), &answer), out)
	return answer
}

// An operator sees a registration through its life and burns one, sees the requests of a
// device, the keys and the sealing keys, and drains an instance and the node. What changes
// something is in the audit log.
func TestOperator(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]func(t *testing.T) testbed.Object{
		"embedded": nil,
		"redis":    func(t *testing.T) testbed.Object { t.Helper(); return testbed.RedisStore(redistest.Start(t).Addr()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, server := testbed.Start(t, func(dsapp testbed.Object) {
				if store != nil {
					dsapp["store"] = store(t)
				}
			})
			testOperator(t, g, server, name)
		})
	}
}

func testOperator(t *testing.T, g *testbed.Gateway, server *testbed.Server, store string) {
	t.Helper()
	show := func(identifier string) caddymodule.AdminRegistration {
		t.Helper()
		return decode[caddymodule.AdminRegistration](t, g, "registrations", "show", identifier)
	}
	r := g.Register(t)
	got := show(r.Identifier)
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), got.Expires, time.Minute)
	got.Expires = time.Time{}
	assert.Equal(t, caddymodule.AdminRegistration{
		Identifier: r.Identifier, Kind: "mdl", State: "pending", Instance: "primary", MaxAttempts: 3, MaxActivations: 3,
	}, got)
	g.Exchange(t, r.Identifier, "not the password")
	g.Exchange(t, r.Identifier, r.Password)
	got = show(r.Identifier)
	assert.Equal(t, []any{"proven", 1, 1, 1}, []any{got.State, got.Attempts, got.Activations, got.Devices})

	out, code := operate(t, "registrations", "burn", r.Identifier, "--address", g.Admin)
	assert.Equal(t, 0, code, out)
	assert.Contains(t, out, "is burned")
	assert.Equal(t, "burned", show(r.Identifier).State)
	status, answer := g.Exchange(t, r.Identifier, r.Password)
	assert.Contains(t, testbed.Answer(status, answer), "STAT_INVCREDENTIALS")
	g.AwaitLog(t, `"registration_burned_by_operator"`)
	g.AwaitLog(t, `"client_ip":"127.0.0.1"`)
	for _, verb := range []string{"show", "burn"} {
		out, code = operate(t, "registrations", verb, "NoSuchRegistration", "--address", g.Admin)
		assert.Equal(t, 1, code)
		assert.Contains(t, out, "there is no such registration")
		out, code = operate(t, "registrations", verb, "a b", "--address", g.Admin)
		assert.Equal(t, 2, code)
		assert.Contains(t, out, "the registration identifier must")
	}

	device := g.ActivatedDevice(t)
	key, _ := testbed.Ask(t, server, testbed.Login, device)
	g.MustRetrieve(t, testbed.Login, testbed.FrontEndKey, device.SerialNumber, key)
	requests := decode[[]caddymodule.AdminRequest](t, g, "requests", device.SerialNumber)
	assert.Equal(t, []caddymodule.AdminRequest{{Kind: "login", Key: key[:4] + "…", Application: "mobile-app", Instance: "primary"}}, requests)

	keys := decode[[]caddymodule.AdminKey](t, g, "keys", "list")
	require.Len(t, keys, 2)
	assert.Equal(t, []any{"bank-site", "back_end", []string{"127.0.0.0/8", "::1/128"}}, []any{keys[1].Name, keys[1].Class, keys[1].Allow})
	assert.Len(t, keys[0].Hash, 8)
	assert.WithinDuration(t, time.Now(), keys[0].LastUsed, 10*time.Minute)

	sealing := decode[caddymodule.AdminSealing](t, g, "seal-usage")
	require.NotEmpty(t, sealing.Keys)
	assert.Equal(t, "sealing_keys[0]", sealing.Keys[0].Key)
	assert.Positive(t, sealing.Keys[0].Values)
	assert.Zero(t, sealing.Unknown)

	assert.Equal(t, store, decode[caddymodule.AdminStatus](t, g, "status").Store)
	instances := decode[[]caddymodule.AdminInstance](t, g, "instances")
	require.Len(t, instances, 1)
	assert.Equal(t, []any{"primary", "working", "closed"}, []any{instances[0].Name, instances[0].State, instances[0].Breaker})
	_, code = operate(t, "health", "--address", g.Admin)
	assert.Equal(t, 0, code)
	for _, drained := range []struct {
		arguments []string
		logged    string
		state     string
		health    int
	}{
		{[]string{"drain", "primary"}, "instance_drained", "drained", 0},
		{[]string{"undrain", "primary"}, "instance_undrained", "working", 0},
		{[]string{"drain"}, "node_drained", "working", 1},
		{[]string{"undrain"}, "node_undrained", "working", 0},
	} {
		out, code = operate(t, append(drained.arguments, "--address", g.Admin)...)
		assert.Equal(t, 0, code, out)
		g.AwaitLog(t, `"`+drained.logged+`"`)
		assert.Equal(t, drained.state, decode[[]caddymodule.AdminInstance](t, g, "instances")[0].State)
		_, code = operate(t, "health", "--address", g.Admin)
		assert.Equal(t, drained.health, code, drained.arguments)
	}
	out, code = operate(t, "drain", "nobody", "--config", writeConfig(t, g))
	assert.Equal(t, 1, code)
	assert.Contains(t, out, "caddy dsapp instances")

	for _, secret := range []string{testbed.FrontEndKey, testbed.BackEndKey, testbed.SealingKey, r.Password, key} {
		for _, path := range []string{"status", "health/ready", "instances", "keys", "seal-usage", "requests?serial_number=" + device.SerialNumber, "registrations/" + r.Identifier} {
			answer, err := g.AskAdmin(t.Context(), "/dsapp/"+path)
			require.NoError(t, err)
			assert.NotContains(t, answer, secret, path)
		}
	}
}

// Without a gateway the commands say so, with exit status 2. Keys are made and hashed without
// one.
func TestOperatorWithoutGateway(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"status"}, {"health"}, {"instances"}, {"registrations", "show", "abcd"}, {"seal-usage"}} {
		out, code := operate(t, append(arguments, "--address", freeport.Address(t))...)
		assert.Equal(t, 2, code, arguments)
		assert.Contains(t, out, "no gateway answers at the admin endpoint")
	}
	for _, arguments := range [][]string{{"requests"}, {"status", "more"}, {"status", "--nonsense"}, {"registrations", "show"}} {
		out, code := operate(t, arguments...)
		assert.Equal(t, 2, code, out)
		assert.Contains(t, out, "usage: caddy dsapp "+arguments[0])
	}
	for arguments, want := range map[string]string{
		"statsu": `unknown command "statsu" for "caddy dsapp"`, "keys lits": `unknown command "lits" for "caddy dsapp keys"`,
	} {
		out, code := operate(t, strings.Fields(arguments)...)
		assert.Equal(t, 2, code, out)
		assert.Contains(t, out, want)
	}
	out, code := operate(t, "keys", "new")
	assert.Equal(t, 0, code)
	assert.Regexp(t, `^key         [0-9a-f]{64}\nkey_sha256  [0-9a-f]{64}\n$`, out)
}

// A Caddy built from the root package, as xcaddy does it, has the commands for operators and
// none of the sandbox.
func TestOperatorCommandsInEveryBuild(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "caddy")
	require.NoError(t, os.WriteFile(source, []byte(`package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/dsapp-gateway/dsapp-gateway"
)

func main() { caddycmd.Main() }
`), 0o600))
	built, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source).CombinedOutput()
	require.NoError(t, err, string(built))
	help, err := exec.CommandContext(t.Context(), binary, "dsapp", "--help").CombinedOutput()
	require.NoError(t, err, string(help))
	for _, name := range []string{"status", "health", "instances", "registrations", "requests", "drain", "undrain", "keys", "check", "store", "seal-usage"} {
		assert.Regexp(t, `(?m)^  `+name+` `, string(help))
	}
	assert.NotContains(t, string(help), "sandbox")
	modules, err := exec.CommandContext(t.Context(), binary, "list-modules").CombinedOutput()
	require.NoError(t, err)
	assert.Contains(t, string(modules), "admin.api.dsapp\n")
}
