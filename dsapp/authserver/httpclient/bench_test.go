//go:build unix

package httpclient

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPost measures a command with its answer over TLS on the loopback interface, with this
// client and with that of net/http. The server is the same, and nearly all that it does is its
// system calls. The time of the processor includes it.
func BenchmarkPost(b *testing.B) {
	command := []byte(strings.Repeat("x", 900))
	text := strings.Repeat("x", 1500)
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nDate: Mon, 30 Nov 2026 12:00:00 GMT\r\n" +
		"Content-Length: " + strconv.Itoa(len(text)) + "\r\n\r\n" + text)
	s := newServer(b, func(p *peer) {
		request := make([]byte, 16<<10)
		for {
			for n := 0; !bytes.HasSuffix(request[:n], command); {
				read, err := p.Read(request[n:])
				if n += read; err != nil {
					return
				}
			}
			if _, err := p.Write(answer); err != nil {
				return
			}
		}
	})
	header := http.Header{"Content-Type": {"text/xml; charset=utf-8"}, "SOAPAction": {`""`}}
	client := s.client(b, nil)
	other := &http.Transport{TLSClientConfig: s.config.Clone(), MaxIdleConnsPerHost: 4, DisableCompression: true}
	b.Cleanup(other.CloseIdleConnections)
	buffer := make([]byte, 4096)
	for name, post := range map[string]func(context.Context) (*http.Response, error){
		"client": func(ctx context.Context) (*http.Response, error) { return client.Post(ctx, header, command) },
		"net-http": func(ctx context.Context) (*http.Response, error) {
			ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() {}, GotConn: func(httptrace.GotConnInfo) {}})
			r := &http.Request{
				Method: http.MethodPost, URL: s.address, Host: s.address.Host, ProtoMajor: 1, ProtoMinor: 1, Header: header,
				Body: io.NopCloser(bytes.NewReader(command)), ContentLength: int64(len(command)),
			}
			return other.RoundTrip(r.WithContext(ctx))
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := processorTime()
			for b.Loop() {
				ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
				response, err := post(ctx)
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = response.Body.Read(buffer)
				}
				if err != io.EOF {
					b.Fatal(err)
				}
				response.Body.Close()
				cancel()
			}
			b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// processorTime returns the time that this process has used the processor.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
