package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/figures"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// BenchmarkRefused compares the processor time of the most expensive requests that are refused
// with that of the cheapest request that is forwarded, in turns. The limits count both alike,
// so the ratio must not be above 1.
func BenchmarkRefused(b *testing.B) {
	const largest, round = 64 << 10, 50
	fill := func(open, item, end string) string {
		return open + strings.Repeat(item, (largest-len(open)-len(end))/len(item)) + end
	}
	var unknown strings.Builder
	for i := range 61 {
		fmt.Fprintf(&unknown, `,"%s%d":0`, strings.Repeat("_", 1000), i)
	}
	for _, refused := range []struct {
		name, path, body string
		status           int
	}{
		{"members", testbed.LoginPath, fill("{", `"":0,`, `"":0}`), http.StatusBadRequest},
		{"64 members", testbed.LoginPath, `{"x":[` + strings.Repeat(`{"`+strings.Repeat("x", 1000)+`":0},`, 63) + `0]}`, http.StatusBadRequest},
		{"misspelt", testbed.LoginPath, `{"userID":"jane.doe","password":"123456","Domain":""` + unknown.String() + "}", http.StatusBadRequest},
		{"digits", testbed.LoginPath, fill(`{"x":0.`, "1", "}"), http.StatusBadRequest},
		{"arrays", testbed.LoginPath, fill(`{"x":[`+strings.Repeat("[],", 1023)+"0", " ", "]}"), http.StatusBadRequest},
		{"text", testbed.LoginPath, fill(`{"userID":"`, "ü", `"}`), http.StatusBadRequest},
		{"escapes", testbed.LoginPath, fill(`{"userID":"`, `\u00fc`, `"}`), http.StatusBadRequest},
		{"white space", testbed.LoginPath, fill(`{`, " ", "}"), http.StatusBadRequest},
		{"too large", testbed.LoginPath, strings.Repeat(" ", 4*largest), http.StatusRequestEntityTooLarge},
		{"disguised path", strings.Repeat("/x/..", 2000) + testbed.LoginPath, "{}", http.StatusNotFound},
		{"encoded path", "/" + strings.Repeat("%2525", 2000) + "/.." + testbed.LoginPath, "{}", http.StatusNotFound},
	} {
		b.Run(refused.name, func(b *testing.B) {
			certs := testbed.Certificates(b)
			g := testbed.StartGateway(b, certs, testbed.StartServer(b, certs).URL, nil)
			call := func(path, body string, status int) time.Duration {
				before := testbed.ProcessorTime(b, g.Pid())
				for range round {
					got, answer := g.Call(b, path, testbed.FrontEndKey, body)
					require.Equal(b, status, got, answer)
				}
				return testbed.ProcessorTime(b, g.Pid()) - before
			}
			call(testbed.LoginPath, testbed.LoginBody, http.StatusOK)
			var dear, cheap time.Duration
			n := 0
			for b.Loop() {
				dear += call(refused.path, refused.body, refused.status)
				cheap += call(testbed.LoginPath, testbed.LoginBody, http.StatusOK)
				n += round
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(dear.Microseconds())/float64(n), "cpu-µs/refused")
			b.ReportMetric(float64(cheap.Microseconds())/float64(n), "cpu-µs/forwarded")
			b.ReportMetric(float64(dear)/float64(cheap), "refused/forwarded")
		})
	}
}

// quietGateway starts a gateway that writes no logs about requests.
func quietGateway(b *testing.B, certs sandbox.Certificates, server string, env ...string) *testbed.Gateway {
	g := testbed.Configure(b, certs, server, nil)
	g.Env = env
	g.LogLevel("WARN")
	delete(g.HTTPServer(), "logs")
	g.Start(b)
	return g
}

// BenchmarkForwarded measures the processor time of a request that is forwarded, without the
// cost of logs: of a one-time password, which needs no store, and of a retrieval, which does.
func BenchmarkForwarded(b *testing.B) {
	const round = 200
	certs := testbed.Certificates(b)
	for name, request := range map[string][2]string{
		"login":    {testbed.LoginPath, testbed.LoginBody},
		"retrieve": {testbed.Login.RetrievePath, `{"serialNumber":"VDS0000001","challengeKey":"5EC2E7"}`},
	} {
		b.Run(name, func(b *testing.B) {
			g := quietGateway(b, certs, testbed.StartServer(b, certs).URL)
			call := func() {
				for range round {
					got, answer := g.Call(b, request[0], testbed.FrontEndKey, request[1])
					require.Equal(b, http.StatusOK, got, answer)
				}
			}
			call()
			before, n := testbed.ProcessorTime(b, g.Pid()), 0
			for b.Loop() {
				call()
				n += round
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64((testbed.ProcessorTime(b, g.Pid())-before).Nanoseconds())/1000/float64(n), "cpu-µs/forwarded")
		})
	}
}

// contestant is one of several ways to do the same, in a gateway of its own.
type contestant struct {
	name    string
	gateway *testbed.Gateway
	do      func()
}

// inTurns does a round of each contestant in turns, and reports the processor time that each
// takes, and the median of its ratios to the first one in the same turn.
func inTurns(b *testing.B, round int, contestants ...contestant) {
	times := make([][]float64, len(contestants))
	turn := func() {
		for i, v := range contestants {
			before := testbed.ProcessorTime(b, v.gateway.Pid())
			for range round {
				v.do()
			}
			times[i] = append(times[i], (testbed.ProcessorTime(b, v.gateway.Pid())-before).Seconds()*1e6/float64(round))
		}
	}
	turn()
	clear(times)
	for b.Loop() {
		turn()
	}
	b.ReportMetric(0, "ns/op")
	for i, v := range contestants {
		ratios := make([]float64, len(times[i]))
		for turn := range ratios {
			ratios[turn] = times[i][turn] / times[0][turn]
		}
		b.ReportMetric(figures.Quantile(slices.Clone(times[i]), 0.5), "cpu-µs/"+v.name)
		b.ReportMetric(figures.Quantile(ratios, 0.5), v.name+"/"+contestants[0].name)
	}
}

// BenchmarkCollector compares the processor time of a one-time password with Go's default for
// the garbage collector with that when it runs as often as the gateway sets.
func BenchmarkCollector(b *testing.B) {
	certs := testbed.Certificates(b)
	with := func(name string, env ...string) contestant {
		g := quietGateway(b, certs, testbed.StartServer(b, certs).URL, env...)
		return contestant{name, g, func() {
			status, answer := g.Call(b, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
			require.Equal(b, http.StatusOK, status, answer)
		}}
	}
	inTurns(b, 500, with("GOGC=100", "GOGC=100"), with("GOGC=400"))
}

// BenchmarkHandshake compares the processor time of new connections by the key of the
// certificate, and of full handshakes with those that resume a session.
func BenchmarkHandshake(b *testing.B) {
	var contestants []contestant
	for _, kind := range []string{"ECDSA", "RSA"} {
		certs := testbed.Certificates(b)
		if kind == "RSA" {
			certs = rsaCertificate(b)
		}
		g := quietGateway(b, certs, "https://localhost:1")
		trusted := testbed.NewClient(b, certs.Authority, "localhost").Transport.(*http.Transport).TLSClientConfig
		for _, resumed := range []bool{false, true} {
			config := trusted.Clone()
			name := kind
			if resumed {
				config.ClientSessionCache, name = tls.NewLRUClientSessionCache(1), kind+"-resumed"
			}
			connect := func(wait bool) {
				c, err := tls.Dial("tcp", strings.TrimPrefix(g.URL, "https://"), config)
				require.NoError(b, err)
				if wait {
					// The session arrives after the handshake.
					_, err = fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
					require.NoError(b, err)
					_, err = io.ReadAll(c)
					require.NoError(b, err)
				} else {
					require.Equal(b, resumed, c.ConnectionState().DidResume)
				}
				require.NoError(b, c.Close())
			}
			connect(true)
			contestants = append(contestants, contestant{name, g, func() { connect(false) }})
		}
	}
	inTurns(b, 200, contestants...)
}

// rsaCertificate makes a certificate with an RSA key of 2048 bits.
func rsaCertificate(b *testing.B) sandbox.Certificates {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(b, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(b, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(b, err)
	dir := b.TempDir()
	files := sandbox.Certificates{Authority: filepath.Join(dir, "cert.pem"), Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	require.NoError(b, os.WriteFile(files.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600))
	require.NoError(b, os.WriteFile(files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600))
	return files
}
