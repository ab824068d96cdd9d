package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Requests whose end two programs could see at different places are refused, or
// have the one end that RFC 9112, section 6.3, gives them; then the connection says
// nothing more than that one answer.
func TestRequestSmuggling(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, nil)
	inner := message(serverTimePath, frontEndKey, "")
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(onlineBody), onlineBody)
	length := fmt.Sprintf("Content-Length: %d", len(onlineBody))
	for name, text := range map[string]string{
		"two lengths":             message(onlinePath, frontEndKey, onlineBody+inner, length, fmt.Sprintf("Content-Length: %d", len(onlineBody)+len(inner))),
		"a list of lengths":       message(onlinePath, frontEndKey, onlineBody+inner, length+", 3"),
		"negative length":         message(onlinePath, frontEndKey, onlineBody, "Content-Length: -1"),
		"length with a sign":      message(onlinePath, frontEndKey, onlineBody, "Content-Length: +5"),
		"length in hex":           message(onlinePath, frontEndKey, onlineBody, "Content-Length: 0x41"),
		"unknown coding":          message(onlinePath, frontEndKey, chunked, "Transfer-Encoding: xchunked"),
		"two codings":             message(onlinePath, frontEndKey, chunked, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
		"space before colon":      message(onlinePath, frontEndKey, onlineBody, "Content-Length : 3"),
		"bare CR":                 message(onlinePath, frontEndKey, onlineBody, length, "X: y\rTransfer-Encoding: chunked"),
		"NUL":                     message(onlinePath, frontEndKey, onlineBody, length, "X: \x00"),
		"bare LF in a chunk size": message(onlinePath, frontEndKey, strings.Replace(chunked, "\r\n", "\n", 1), "Transfer-Encoding: chunked"),
		"no end of a chunk":       message(onlinePath, frontEndKey, fmt.Sprintf("%x\r\n%sxx0\r\n\r\n", len(onlineBody), onlineBody), "Transfer-Encoding: chunked"),
		"bad chunk size":          message(onlinePath, frontEndKey, "-1\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
		"huge chunk size":         message(onlinePath, frontEndKey, "FFFFFFFFFFFFFFFFF\r\n", "Transfer-Encoding: chunked"),
		"no host":                 strings.Replace(message(onlinePath, frontEndKey, onlineBody), "Host: localhost\r\n", "", 1),
		"two hosts":               message(onlinePath, frontEndKey, onlineBody, length, "Host: elsewhere"),
	} {
		w := g.dial(t, "http/1.1")
		w.say(text + inner)
		got := w.hear()
		assert.GreaterOrEqual(t, got.status, 400, name)
		assert.Less(t, got.status, 600, name)
		assert.True(t, got.last, name)
		w.ended()
	}
	// The coding decides, and the length is not believed. Whoever read the request by its
	// length would go on at another place: the connection ends with the answer, also if
	// there was no length (RFC 9112, section 6.1).
	for name, tc := range map[string]struct {
		status int
		text   string
	}{
		"length and coding":        {http.StatusOK, message(onlinePath, frontEndKey, chunked, "Content-Length: 3", "Transfer-Encoding: chunked")},
		"coding and length":        {http.StatusOK, message(onlinePath, frontEndKey, chunked, "Transfer-Encoding: chunked", length)},
		"coding":                   {http.StatusOK, message(onlinePath, frontEndKey, chunked, "Transfer-Encoding: Chunked")},
		"coding and no key":        {http.StatusUnauthorized, message(onlinePath, "", chunked, "Content-Length: 3", "Transfer-Encoding: chunked")},
		"coding and no service":    {http.StatusNotFound, message("/rest/v2/unknown", frontEndKey, chunked, "Content-Length: 3", "Transfer-Encoding: chunked")},
		"coding and another class": {http.StatusForbidden, message(registerPath, frontEndKey, chunked, "Content-Length: 3", "Transfer-Encoding: chunked")},
		// That version has no codings: the request is over with its header.
		"coding of HTTP/1.0":        {http.StatusBadRequest, strings.Replace(message(onlinePath, frontEndKey, chunked, "Transfer-Encoding: chunked", "Connection: keep-alive"), "HTTP/1.1", "HTTP/1.0", 1)},
		"coding and another method": {http.StatusMethodNotAllowed, strings.Replace(message(onlinePath, frontEndKey, chunked, "Content-Length: 3", "Transfer-Encoding: chunked"), "POST", "PUT", 1)},
	} {
		w := g.dial(t, "http/1.1")
		w.say(tc.text + inner)
		got := w.hear()
		assert.Equal(t, tc.status, got.status, name)
		assert.True(t, got.last, name)
		w.ended()
	}
	for name, text := range map[string]string{
		// A line may end with LF alone (RFC 9112, section 2.2).
		"bare LF":           strings.ReplaceAll(message(onlinePath, frontEndKey, "", length), "\r\n", "\n") + onlineBody,
		"same length twice": message(onlinePath, frontEndKey, onlineBody, length, length),
		// What is folded belongs to the value (RFC 9112, section 5.2).
		"folded field": message(onlinePath, frontEndKey, onlineBody, length, "X: y\r\n Transfer-Encoding: chunked"),
	} {
		w := g.dial(t, "http/1.1")
		w.say(text + inner)
		first, second := w.hear(), w.hear()
		assert.Equal(t, []int{http.StatusOK, http.StatusOK}, []int{first.status, second.status}, name)
		assert.Contains(t, second.body, "serverTime", name)
	}
	g.serves(t)
}
