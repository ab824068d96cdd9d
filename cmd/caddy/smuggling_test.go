package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// Requests whose end two programs could see at different places are refused, or end where RFC
// 9112, section 6.3, says. In both cases nothing but that one answer comes on the connection.
func TestRequestSmuggling(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, nil)
	inner := testbed.HTTP1Request(testbed.ServerTimePath, testbed.FrontEndKey, "")
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(testbed.LoginBody), testbed.LoginBody)
	length := fmt.Sprintf("Content-Length: %d", len(testbed.LoginBody))
	for name, text := range map[string]string{
		"two lengths":             testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody+inner, length, fmt.Sprintf("Content-Length: %d", len(testbed.LoginBody)+len(inner))),
		"a list of lengths":       testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody+inner, length+", 3"),
		"negative length":         testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, "Content-Length: -1"),
		"length with a sign":      testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, "Content-Length: +5"),
		"length in hex":           testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, "Content-Length: 0x41"),
		"unknown coding":          testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, chunked, "Transfer-Encoding: xchunked"),
		"two codings":             testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, chunked, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
		"space before colon":      testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, "Content-Length : 3"),
		"bare CR":                 testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, length, "X: y\rTransfer-Encoding: chunked"),
		"NUL":                     testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, length, "X: \x00"),
		"bare LF in a chunk size": testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, strings.Replace(chunked, "\r\n", "\n", 1), "Transfer-Encoding: chunked"),
		"no end of a chunk":       testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, fmt.Sprintf("%x\r\n%sxx0\r\n\r\n", len(testbed.LoginBody), testbed.LoginBody), "Transfer-Encoding: chunked"),
		"bad chunk size":          testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, "-1\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
		"huge chunk size":         testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, "FFFFFFFFFFFFFFFFF\r\n", "Transfer-Encoding: chunked"),
		"no host":                 strings.Replace(testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody), "Host: localhost\r\n", "", 1),
		"two hosts":               testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, length, "Host: elsewhere"),
	} {
		w := g.Dial(t, "http/1.1")
		w.Say(text + inner)
		got := w.Hear()
		assert.GreaterOrEqual(t, got.Status, 400, name)
		assert.Less(t, got.Status, 600, name)
		assert.True(t, got.Last, name)
		w.Ended()
	}
	// The transfer coding decides, not the length. A program that went by the length would see
	// the next request at another place: the connection is closed after the answer, even
	// without a length (RFC 9112, section 6.1).
	for name, tc := range map[string]struct {
		status int
		text   string
	}{
		"length and coding":        {http.StatusOK, testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, chunked, "Content-Length: 3", "Transfer-Encoding: chunked")},
		"coding and length":        {http.StatusOK, testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, chunked, "Transfer-Encoding: chunked", length)},
		"coding":                   {http.StatusOK, testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, chunked, "Transfer-Encoding: Chunked")},
		"coding and no key":        {http.StatusUnauthorized, testbed.HTTP1Request(testbed.LoginPath, "", chunked, "Content-Length: 3", "Transfer-Encoding: chunked")},
		"coding and no service":    {http.StatusNotFound, testbed.HTTP1Request("/rest/v2/unknown", testbed.FrontEndKey, chunked, "Content-Length: 3", "Transfer-Encoding: chunked")},
		"coding and another class": {http.StatusForbidden, testbed.HTTP1Request(testbed.RegisterPath, testbed.FrontEndKey, chunked, "Content-Length: 3", "Transfer-Encoding: chunked")},
		// HTTP/1.0 has no transfer codings: the request ends with its header.
		"coding of HTTP/1.0":        {http.StatusBadRequest, strings.Replace(testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, chunked, "Transfer-Encoding: chunked", "Connection: keep-alive"), "HTTP/1.1", "HTTP/1.0", 1)},
		"coding and another method": {http.StatusMethodNotAllowed, strings.Replace(testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, chunked, "Content-Length: 3", "Transfer-Encoding: chunked"), "POST", "PUT", 1)},
	} {
		w := g.Dial(t, "http/1.1")
		w.Say(tc.text + inner)
		got := w.Hear()
		assert.Equal(t, tc.status, got.Status, name)
		assert.True(t, got.Last, name)
		w.Ended()
	}
	for name, text := range map[string]string{
		// A line may end with LF alone (RFC 9112, section 2.2).
		"bare LF":           strings.ReplaceAll(testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, "", length), "\r\n", "\n") + testbed.LoginBody,
		"same length twice": testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, length, length),
		// A folded line belongs to the value before it (RFC 9112, section 5.2).
		"folded field": testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, length, "X: y\r\n Transfer-Encoding: chunked"),
	} {
		w := g.Dial(t, "http/1.1")
		w.Say(text + inner)
		first, second := w.Hear(), w.Hear()
		assert.Equal(t, []int{http.StatusOK, http.StatusOK}, []int{first.Status, second.Status}, name)
		assert.Contains(t, second.Body, "serverTime", name)
	}
	g.Serves(t)
}
