package httpclient

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Answers are read as net/http reads them. A connection is used again only if the answer says
// where it ends, and does not say that the connection ends, too.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const (
		ok      = "HTTP/1.1 200 OK\r\n"
		info    = "HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
		chunked = "Transfer-Encoding: chunked\r\n"
	)
	for name, test := range map[string]struct {
		answer string
		end    bool // the server ends the connection after the answer
		status int  // 0: error
		text   string
		again  bool
	}{
		"length":                   {answer: plain, status: 200, text: "ok", again: true},
		"chunks":                   {answer: ok + chunked + "\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", status: 200, text: "ok", again: true},
		"chunks with trailer":      {answer: ok + chunked + "\r\n2\r\nok\r\n0\r\nX-T: y\r\n\r\n", status: 200, text: "ok", again: true},
		"no body":                  {answer: ok + "Content-Length: 0\r\n\r\n", status: 200, again: true},
		"no content":               {answer: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, again: true},
		"redirect":                 {answer: "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", status: 302, again: true},
		"ends with the connection": {answer: ok + "\r\nok", end: true, status: 200, text: "ok"},
		"connection closes":        {answer: ok + "Connection: close\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok"},
		"HTTP/1.0":                 {answer: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok"},
		"HTTP/1.0, kept":           {answer: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok", again: true},
		"informational":            {answer: "HTTP/1.1 100 Continue\r\n\r\n" + strings.Repeat(info, 4) + plain, status: 200, text: "ok", again: true},
		"too many informational":   {answer: strings.Repeat(info, 6) + plain},
		"switching protocols":      {answer: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", status: 101},
		"status below 100":         {answer: "HTTP/1.1 099 What\r\nContent-Length: 2\r\n\r\nok", status: 99, text: "ok"},
		"length and chunks":        {answer: ok + chunked + "Content-Length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n", status: 200, text: "ok", again: true},
		"two lengths":              {answer: ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok"},
		"twice the same length":    {answer: ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok", again: true},
		"negative length":          {answer: ok + "Content-Length: -2\r\n\r\nok"},
		"signed length":            {answer: ok + "Content-Length: +2\r\n\r\nok"},
		"list of lengths":          {answer: ok + "Content-Length: 2, 2\r\n\r\nok"},
		"two encodings":            {answer: ok + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		"unknown encoding":         {answer: ok + "Transfer-Encoding: gzip\r\n\r\nok"},
		"blank before the colon":   {answer: ok + "Content-Length : 1\r\n\r\nok", end: true, status: 200, text: "ok"},
		"bad chunk":                {answer: ok + chunked + "\r\nx\r\nok\r\n0\r\n\r\n"},
		"missing bytes":            {answer: ok + "Content-Length: 3\r\n\r\nok", end: true},
		"missing chunk":            {answer: ok + chunked + "\r\n2\r\nok\r\n", end: true},
		"missing header":           {answer: ok + "Content-Length: 2\r\n", end: true},
		"nothing":                  {end: true},
		"not HTTP":                 {answer: "SSH-2.0-OpenSSH\r\n\r\n"},
		"HTTP/2":                   {answer: "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok", again: true},
		"long header":              {answer: ok + "X: " + strings.Repeat("x", maxHeader-100) + "\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok", again: true},
		"too long header":          {answer: ok + "X: " + strings.Repeat("x", maxHeader) + "\r\nContent-Length: 2\r\n\r\nok"},
		"endless header":           {answer: ok + strings.Repeat("X: x\r\n", maxHeader/6)},
		"long body":                {answer: ok + "Content-Length: 200000\r\n\r\n" + strings.Repeat("x", 200000), status: 200, text: strings.Repeat("x", 200000), again: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(p *peer) {
				for p.receive() {
					if p.send(test.answer); test.end {
						return
					}
				}
			})
			c := s.client(t, nil)
			for range 2 {
				status, text, err := post(t.Context(), c)
				if (err != nil) != (test.status == 0) || err == nil && (status != test.status || text != test.text) {
					t.Errorf("%d %.100q, %v", status, text, err)
				}
				if _, unsent := errors.AsType[*NotSentError](err); unsent {
					t.Error("the command was sent")
				}
			}
			s.expect(t, map[bool]int64{true: 1, false: 2}[test.again], 2)
		})
	}
}

// reference reads an answer as net/http does. complete says that it is one which does not depend
// on the end of the connection.
func reference(answer string) (status int, text string, complete bool, err error) {
	r := bufio.NewReader(strings.NewReader(answer))
	for range maxInformational + 1 {
		response, err := http.ReadResponse(r, nil) //nolint:bodyclose // there is no connection
		if err != nil {
			return 0, "", false, err
		}
		status = response.StatusCode
		if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
			continue
		}
		b, err := io.ReadAll(response.Body)
		return status, string(b), err == nil && (response.ContentLength >= 0 || response.TransferEncoding != nil), err
	}
	return 0, "", false, errors.New("too many informational answers")
}

// An answer is what net/http reads, whatever a server sends. The next command gets its own answer,
// and nothing that followed the first one.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		plain, plain + plain, plain + "\n", "HTTP/1.1 100 Continue\r\n\r\n" + plain, "HTTP/1.0 200 OK\r\n\r\nok", "HTTP/1.1 099 What\r\n\r\n" + plain, "SSH-2.0\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + plain, "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 40\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 0\n\n", "HTTP/1.1 101 X\r\n\r\nok",
	} {
		f.Add(seed)
	}
	type answer struct {
		text string
		end  bool
	}
	answers := make(chan answer, 2)
	s := newServer(f, func(p *peer) {
		for p.receive() {
			<-p.server.received
			a := <-answers
			if p.send(a.text); a.end {
				return
			}
		}
		<-p.server.closed
	})
	c := s.client(f, nil)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			t.Skip("longer than one TLS record can be at the beginning")
		}
		wantStatus, want, complete, wantErr := reference(text)
		answers <- answer{text, !complete}
		status, got, err := post(t.Context(), c)
		if (err != nil) != (wantErr != nil) || err == nil && (status != wantStatus || got != want) {
			t.Errorf("%d %q, %v, not %d %q, %v", status, got, err, wantStatus, want, wantErr)
		}
		answers <- answer{text: plain}
		mustPost(t, c)
	})
}

// The end of the connection before the end of the answer is io.ErrUnexpectedEOF.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"} {
		s := newServer(t, func(p *peer) {
			if p.receive() {
				p.send(answer)
			}
		})
		if _, _, err := post(t.Context(), s.client(t, nil)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", answer, err)
		}
		s.expect(t, 1, 1)
	}
}

// The connection of an answer that was not read to its end is closed. A closed body cannot be
// read, and can be closed again.
func TestUnfinishedBody(t *testing.T) {
	t.Parallel()
	s := newServer(t, answering(plain))
	c := s.client(t, nil)
	for range 2 {
		response, err := c.Post(t.Context(), nil, command)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := response.Body.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if err := errors.Join(response.Body.Close(), response.Body.Close()); err != nil {
			t.Error(err)
		}
		if _, err := response.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Error(err)
		}
		poll.Receive(t, "the end of the connection", s.closed)
	}
	s.expect(t, 2, 2)
}
