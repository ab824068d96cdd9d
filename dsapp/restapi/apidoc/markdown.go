package apidoc

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
)

const introduction = `# Services

This page is generated from the table of services; ` + "`go generate ./dsapp/restapi/apidoc`" + ` writes it anew. The same is in [openapi.json](openapi.json) for
tools, and ` + "`caddy dsapp openapi`" + ` prints it. [journeys.md](journeys.md) shows which services follow each other.

- Every service is a POST request with a JSON object (` + "`Content-Type: application/json`" + `, UTF-8) and gets a JSON object.
- The API key is the user name of HTTP Basic, with an empty password. Phones have a front-end key, systems of the bank a back-end key.
- Names are case-sensitive. A member that is null counts as missing. Keys, codes and serial numbers are strings, since leading zeros count.
- HTTP status 200 alone is no success: the return code (` + "`returnCode`, or `errorCode`" + ` in version 1) must be 0. Otherwise the request was refused, and
  ` + "`statusCodeEnum` (or `errorMessage`)" + ` says why. Decide by this name, not by the number: the vendor does not publish all numbers.
- ` + "`errorDescription`" + ` is for developers. It names a member and never has a value of the request.
- Ignore members of answers that you do not know: later versions may have more.

## Try the examples

The examples are for the sandbox, which needs only Go:

` + "```sh" + `
go run ./cmd/caddy dsapp sandbox
` + "```" + `

It prints where the certificate of its CA is. In another terminal:

` + "```sh" + `
CA=FOLDER-OF-THE-SANDBOX/certificates/ca.pem
GATEWAY=https://localhost:11080
` + "```" + `

Registering and asking for the time work as they stand, and so does the first call of an exchange. The other examples are well-formed, but their
values belong to nobody, so that they are refused. Real values come from here:

| value | where it comes from |
|---|---|
| ` + "`registrationIdentifier`" + `, activation password | the answer of ` + "`DSAPPSRPRegister`" + ` |
| ` + "`clientEphemeralPublicKey`, `clientEvidenceMessage`" + ` | an SRP client: a phone, or ` + "`caddy dsapp phone activate`" + ` |
| ` + "`deviceCode`, `signature`, `response`, `derivationCode`" + `, wrapped keys and notification IDs | the device; in the sandbox ` + "`caddy dsapp phone`" + `, which shows what it sends; ` + "`--json`" + ` prints all values in full, and with ` + "`--prepare`" + ` the last call is printed instead of sent |
| ` + "`serialNumber`, `digipassInstanceID`" + ` | the last line of ` + "`caddy dsapp phone activate`" + ` |
| ` + "`challengeKey`, `requestKey`" + ` | the push notification or image of a request, such as that of ` + "`caddy dsapp sandbox request-signature`" + `; the sandbox lists the notifications at the address that it prints last. An image of a login is for the phone that was activated last |

`

// Markdown returns a page for people about the services.
func Markdown() ([]byte, error) {
	var b strings.Builder
	b.WriteString(introduction)
	b.WriteString("## All services\n\n")
	for _, f := range restapi.Flows() {
		fmt.Fprintf(&b, "**%s.** %s\n\n| service | key | |\n|---|---|---|\n", f, f.Describe())
		for _, s := range restapi.Services() {
			if s.Flow == f {
				fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s |\n", s.Path, anchor(&s), keys(&s), summary(&s))
			}
		}
		b.WriteString("\n")
	}
	writeAnswers(&b)
	for _, f := range restapi.Flows() {
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", f, f.Describe())
		for _, s := range restapi.Services() {
			if s.Flow != f {
				continue
			}
			if err := writeService(&b, &s); err != nil {
				return nil, err
			}
		}
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}

func writeAnswers(b *strings.Builder) {
	b.WriteString("## HTTP statuses\n\n| HTTP status | `statusCodeEnum` | when | what to do |\n|---|---|---|---|\n" + answerRows())
	b.WriteString("\nEvery answer has the header field `X-Request-Id`, by which the operators find the request in their logs. 409, 429 and 503 have `Retry-After`, in seconds.\n\n")
	b.WriteString("## Statuses\n\nAn authentication server may use others: treat them as a refusal without a known reason.\n\n" +
		"| `statusCodeEnum` | `statusCode` | when |\n|---|---|---|\n" + statusRows("`") + "\n")
}

func writeService(b *strings.Builder, s *restapi.Service) error {
	fmt.Fprintf(b, "### %s\n\n%s", s.Path, s.Purpose)
	if s.Details != "" {
		b.WriteString(" " + s.Details)
	}
	if s.Operation.Repeatable() {
		b.WriteString(" " + repeatable)
	}
	b.WriteString("\n\n")
	switch s.Channel {
	case restapi.Push:
		b.WriteString("The key of the request comes from a push notification. ")
	case restapi.Scan:
		b.WriteString("The key of the request comes from an image that the phone has scanned. ")
	}
	if s.Deprecated {
		b.WriteString("Deprecated: use the service of version 2. ")
	}
	fmt.Fprintf(b, "Key: %s.\n\n", keys(s))
	if len(s.Members) > 0 {
		b.WriteString("| member | | format | meaning |\n|---|---|---|---|\n")
		for _, m := range s.Members {
			required := "optional"
			if m.Required {
				required = "required"
			}
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", m.Name, required, ruleOf(m).Describe(), m.Text)
		}
		b.WriteString("\n")
	}
	if s.Keyed {
		fmt.Fprintf(b, "| header field | | format | meaning |\n|---|---|---|---|\n| `%s` | optional | %s | %s |\n\n",
			restapi.KeyField, form.IdempotencyKey("").Rule().Describe(), keyMeaning)
	}
	if err := writeExamples(b, s); err != nil {
		return err
	}
	if len(s.Results) > 0 {
		b.WriteString("| member of the answer | | meaning |\n|---|---|---|\n")
		writeResults(b, "", s.Results)
		b.WriteString("\n")
	}
	if len(s.Refusals) > 0 {
		b.WriteString("| refused with | when | what to do |\n|---|---|---|\n" + refusalRows(s.Refusals, "`") + "\n")
	}
	statuses := []string{}
	for _, a := range s.Answers() {
		statuses = append(statuses, strconv.Itoa(a.HTTPStatus))
	}
	fmt.Fprintf(b, "[HTTP statuses](#http-statuses): %s.\n\n", strings.Join(slices.Compact(statuses), ", "))
	return nil
}

func writeExamples(b *strings.Builder, s *restapi.Service) error {
	body, err := json.Marshal(requestExample(s))
	if err != nil {
		return err
	}
	key := "sandbox-front-end"
	if !slices.Contains(s.Classes, apikey.FrontEnd) {
		key = "sandbox-back-end"
	}
	success, err := marshal(successExample(s))
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "```sh\ncurl --cacert \"$CA\" --user %s: \"$GATEWAY%s\" \\\n  --json '%s'\n```\n\n```json\n%s```\n\n", key, s.Path, body, success)
	return nil
}

func writeResults(b *strings.Builder, prefix string, results []restapi.Result) {
	for _, m := range results {
		present := "always"
		if m.Optional {
			present = "if there is one"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", prefix+m.Name, present, m.Text)
		writeResults(b, prefix+m.Name+".", m.Members)
	}
}

// anchor returns the name under which links find the section of a service.
func anchor(s *restapi.Service) string {
	return strings.ToLower(strings.ReplaceAll(s.Path, "/", ""))
}
