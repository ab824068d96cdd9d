package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
			g := testbed.Configure(b, certs, testbed.StartServer(b, certs).URL, nil)
			g.LogLevel("WARN")
			delete(g.HTTPServer(), "logs")
			g.Start(b)
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
