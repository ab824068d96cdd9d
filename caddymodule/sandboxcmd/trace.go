package sandboxcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

// report is what a command of the phone prints with --json: everything that was sent and
// received, with all secrets.
type report struct {
	Calls []reportedCall `json:"calls"`
	// Phone is the phone that acted; absent before it is activated.
	Phone *reportedPhone `json:"phone,omitempty"`
	// Request is the login or signature that the phone decrypted.
	Request *sandbox.Request `json:"request,omitempty"`
	// Next is the call that --prepare did not send.
	Next  *reportedCall  `json:"next,omitempty"`
	Error *reportedError `json:"error,omitempty"`
}

// reportedCall is one call in a report.
type reportedCall struct {
	Service string          `json:"service"`
	URL     string          `json:"url"`
	APIKey  string          `json:"apiKey"`
	Request json.RawMessage `json:"request"`
	// HTTPStatus and Answer are absent if no answer came, Answer also if it is not JSON.
	HTTPStatus int             `json:"httpStatus,omitempty"`
	Answer     json.RawMessage `json:"answer,omitempty"`
	// Opened are the activation data that the phone decrypted.
	Opened   map[string]string `json:"opened,omitempty"`
	Verified []string          `json:"verified,omitempty"`
}

// reportedPhone is a phone in a report.
type reportedPhone struct {
	SerialNumber string `json:"serialNumber"`
	UserID       string `json:"userID"`
	Domain       string `json:"domain"`
	// File has the keys of the phone.
	File string `json:"file"`
}

// reportedError is why a command failed. All but Message are about a refusal.
type reportedError struct {
	Message     string               `json:"message"`
	Service     string               `json:"service,omitempty"`
	HTTPStatus  int                  `json:"httpStatus,omitempty"`
	ResultCodes *sandbox.ResultCodes `json:"resultCodes,omitempty"`
	Description string               `json:"errorDescription,omitempty"`
}

// trace shows the calls of a phone and their results: it prints them to out, and collects them.
type trace struct {
	out   io.Writer
	count int
	report
}

// present has a command of the phone act and shows what happens, as text or as JSON.
func (o *phoneOptions) present(c *cobra.Command, act func(t *trace) error) error {
	if err := o.readAddresses(c.Flags().Changed); err != nil {
		return err
	}
	t := &trace{out: c.OutOrStdout(), report: report{Calls: []reportedCall{}}}
	if o.json {
		t.out = io.Discard
	}
	err := act(t)
	if unreached, ok := errors.AsType[*url.Error](err); ok && strings.HasPrefix(unreached.URL, o.gateway) {
		err = fmt.Errorf("%w; name the URL of the gateway, which the sandbox prints, with --gateway, or the sandbox's --ready-file", err)
	}
	if !o.json || exitCode(err) == caddymodule.ExitFailed {
		return err
	}
	if err != nil {
		t.Error = &reportedError{Message: err.Error()}
		if refused, ok := errors.AsType[*sandbox.RefusalError](err); ok {
			t.Error.Service, t.Error.HTTPStatus, t.Error.Description = refused.Call, refused.HTTPStatus, refused.Description
			if refused.ResultCodes != (sandbox.ResultCodes{}) {
				t.Error.ResultCodes = &refused.ResultCodes
			}
		}
	}
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	return errors.Join(err, e.Encode(t.report))
}

// acts notes the phone that acts.
func (t *trace) acts(a *sandbox.Authenticator, file string) {
	t.Phone = &reportedPhone{a.SerialNumber, a.UserID, a.Domain, file}
}

// held makes the last call the next one if err says that it was not sent.
func (t *trace) held(err error) error {
	if !errors.Is(err, sandbox.ErrHeld) {
		return err
	}
	last := len(t.Calls) - 1
	t.Next, t.Calls = &t.Calls[last], t.Calls[:last]
	return nil
}

func (t *trace) step(s sandbox.Step) {
	t.count++
	t.Calls = append(t.Calls, reportedCall{
		s.Call, s.Full.URL, s.Full.APIKey, s.Full.Request, s.HTTPStatus, s.Full.Answer, s.Full.Opened, s.Verified,
	})
	fmt.Fprintf(t.out, "%d. %s\n", t.count, s.Call)
	t.members("sent", s.Sent)
	if s.HTTPStatus == 0 {
		t.line("received", "no answer")
	} else {
		t.line("received", fmt.Sprintf("HTTP status %d", s.HTTPStatus))
	}
	t.members("", s.Received)
	for _, what := range s.Verified {
		t.line("verified", what)
	}
	fmt.Fprintln(t.out)
}

func (t *trace) members(label string, members []sandbox.Member) {
	width := 0
	for _, m := range members {
		width = max(width, len(m.Name))
	}
	for _, m := range members {
		t.line(label, fmt.Sprintf("%-*s  %s", width, m.Name, m.Value))
		label = ""
	}
}

func (t *trace) line(label, text string) {
	fmt.Fprintf(t.out, "   %-9s %s\n", label, text)
}
