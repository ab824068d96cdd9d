package sandbox

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/solve"
)

const (
	maxAnswerSize = 1 << 20 // bytes
	// shownDigits is the number of digits at each end of a sensitive value in a Step.
	shownDigits = 4
	hidden      = "(not shown)"
)

// A call is one REST call with the checks of its answer.
type call struct {
	path  string
	flat  bool // the answer has result codes and data in one object
	sent  []Member
	check func(answer) (verified []string, err error) // of a success; may be nil
}

// service returns the name of the REST service.
func (c call) service() string { return path.Base(c.path) }

// do performs a call and reports it to Trace.
func (p *Phone) do(ctx context.Context, key string, c call) error {
	step := Step{Call: c.service(), Full: Exchange{APIKey: key}}
	for _, m := range c.sent {
		step.Sent = append(step.Sent, Member{m.Name, show(m.Name, m.Value)})
	}
	err := p.perform(ctx, key, c, &step)
	if p.Trace != nil {
		p.Trace(step)
	}
	return err
}

func (p *Phone) perform(ctx context.Context, key string, c call, step *Step) error {
	request := make(map[string]string, len(c.sent))
	for _, m := range c.sent {
		request[m.Name] = m.Value
	}
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("calling %s: %w", c.service(), err)
	}
	url := strings.TrimSuffix(p.BaseURL, "/") + c.path
	step.Full.URL, step.Full.Request = url, body
	if p.Hold {
		return ErrHeld
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("calling %s: %w", c.service(), err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(key, "")

	client := p.Client
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("calling %s: %w", c.service(), err)
	}
	defer response.Body.Close()
	step.HTTPStatus = response.StatusCode
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerSize+1))
	if err != nil {
		return fmt.Errorf("calling %s: %w", c.service(), err)
	}
	if len(content) > maxAnswerSize {
		return fmt.Errorf("calling %s: answer is larger than %d bytes", c.service(), maxAnswerSize)
	}

	if json.Valid(content) {
		step.Full.Answer = content
	}
	a, err := readAnswer(c.service(), response, content, c.flat)
	if err != nil {
		return err
	}
	step.Received = a.shown
	if response.StatusCode != http.StatusOK || a.codes.ReturnCode != 0 {
		return &RefusalError{c.service(), response.StatusCode, a.codes, a.description}
	}
	if c.check == nil {
		return nil
	}
	a.opened, a.items = make(map[string]string), new([]solve.Item)
	step.Verified, err = c.check(a)
	step.Full.Opened = a.opened
	return err
}

// An answer is a decoded answer of the gateway.
type answer struct {
	service     string
	path        string // of an object within the result, with a dot at the end
	codes       ResultCodes
	description string
	data        map[string]json.RawMessage
	shown       []Member
	opened      map[string]string // what unseal decrypted
	items       *[]solve.Item     // the same, as it was sent and decrypted
}

// readAnswer decodes an answer. If the HTTP status is not 200, the answer may have any form
// and then has no result codes.
func readAnswer(service string, r *http.Response, content []byte, flat bool) (answer, error) {
	a := answer{service: service}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	err := errors.New("it is not JSON")
	if media == "application/json" {
		err = a.decode(content, flat)
	}
	if err == nil || r.StatusCode != http.StatusOK {
		return a, nil
	}
	return a, fmt.Errorf("answer of %s: %w", service, err)
}

func (a *answer) decode(content []byte, flat bool) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(content, &members); err != nil {
		return errors.New("it is not a JSON object")
	}
	if raw, ok := members["errorDescription"]; ok && json.Unmarshal(raw, &a.description) != nil {
		return errors.New("errorDescription is not a string")
	}

	if flat {
		if json.Unmarshal(members["errorCode"], &a.codes.ReturnCode) != nil ||
			json.Unmarshal(members["errorMessage"], &a.codes.StatusCodeEnum) != nil {
			return errors.New("errorCode or errorMessage is missing or not of its type")
		}
		if (a.codes.ReturnCode == 0) != (a.codes.StatusCodeEnum == "STAT_SUCCESS") {
			return errors.New("errorCode and errorMessage contradict each other")
		}
		a.shown = append(a.shown,
			Member{"errorCode", fmt.Sprint(a.codes.ReturnCode)}, Member{"errorMessage", a.codes.StatusCodeEnum})
		a.data = members
	} else {
		raw, ok := members["resultCodes"]
		if !ok || json.Unmarshal(raw, &a.codes) != nil {
			return errors.New("resultCodes is missing or not of its type")
		}
		if (a.codes.ReturnCode == 0) != (a.codes.ReturnCodeEnum == "RET_SUCCESS") || a.codes.StatusCodeEnum == "" {
			return errors.New("resultCodes contradict each other")
		}
		a.shown = append(a.shown,
			Member{"returnCodeEnum", a.codes.ReturnCodeEnum}, Member{"statusCodeEnum", a.codes.StatusCodeEnum})
		if raw, ok := members["result"]; ok && json.Unmarshal(raw, &a.data) != nil {
			return errors.New("result is not an object")
		}
	}
	a.showMembers("", a.data, maxObjects)
	if a.description != "" {
		a.shown = append(a.shown, Member{"errorDescription", a.description})
	}
	return nil
}

// showMembers appends the known members of an object and of nested objects down to a
// depth.
func (a *answer) showMembers(prefix string, data map[string]json.RawMessage, depth int) {
	for _, name := range shownMembers {
		raw, ok := data[name]
		if !ok {
			continue
		}
		var value string
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &value) == nil {
			a.shown = append(a.shown, Member{prefix + name, show(name, value)})
		} else if depth > 0 && json.Unmarshal(raw, &object) == nil {
			a.showMembers(prefix+name+".", object, depth-1)
		}
	}
}

// object returns a member that must be an object as an answer.
func (a answer) object(name string) (answer, error) {
	raw, ok := a.data[name]
	if !ok {
		return answer{}, a.invalidMember(name, "is missing")
	}
	o := answer{service: a.service, path: a.path + name + ".", opened: a.opened, items: a.items}
	if json.Unmarshal(raw, &o.data) != nil || o.data == nil {
		return answer{}, a.invalidMember(name, "is not an object")
	}
	return o, nil
}

// text returns a member that must be a string. It may be empty.
func (a answer) text(name string) (string, error) {
	raw, ok := a.data[name]
	if !ok {
		return "", a.invalidMember(name, "is missing")
	}
	var value *string
	if json.Unmarshal(raw, &value) != nil || value == nil {
		return "", a.invalidMember(name, "is not a string")
	}
	return *value, nil
}

// hex returns the bytes of a member that must be a positive, even number of hex digits.
func (a answer) hex(name string) ([]byte, error) {
	digits, err := a.text(name)
	if err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) == 0 {
		return nil, a.invalidMember(name, "is not an even number of hex digits")
	}
	return b, nil
}

func (a answer) invalidMember(member, problem string) error {
	return fmt.Errorf("answer of %s: %s%s %s", a.service, a.path, member, problem)
}

// unseal decrypts an item whose three parts are members of the answer.
func (a answer) unseal(t *srp.Session, item seal.Item, dataName string) ([]byte, error) {
	var sealed seal.Ciphertext
	for _, m := range []struct {
		name string
		to   *[]byte
	}{
		{dataName, &sealed.Data},
		{"encryptedCounter", &sealed.Counter},
		{"mac", &sealed.MAC},
	} {
		var err error
		if *m.to, err = a.hex(m.name); err != nil {
			return nil, err
		}
	}
	content, err := t.Open(item, sealed)
	if err != nil {
		return nil, unverified(fmt.Errorf("activation data: %w", err))
	}
	a.opened[string(item)] = string(content)
	*a.items = append(*a.items, solve.Item{
		Name: string(item), Data: sealed.Data, Counter: sealed.Counter, MAC: sealed.MAC, Plaintext: string(content),
	})
	return content, nil
}

// unverified returns the error about an answer that fails a check.
func unverified(err error) error { return fmt.Errorf("%w: %w", ErrUnverified, err) }

// shownMembers are the members of a result that a Step contains, in its order.
var shownMembers = [...]string{
	"registrationIdentifier", "activationPassword", "activationImage", "expiresAt",
	"serverEphemeralPublicKey", "salt",
	"serverEvidenceMessage", "encryptedLicenseActivationMessage",
	"standard", "activationCode", "eventReactivationCounter", "data", "encryptedCounter", "mac",
	"instanceActivationMessage",
	"requestMessage", "encryptedLoginDetails",
	"userID", "domain", "orgUnit", "serialNumber", "serialNo",
}

// maxObjects is the depth of nested objects that a Step contains.
const maxObjects = 2

// show returns the value of a member for a Step. Values of unknown members are hidden.
func show(name, value string) string {
	switch name {
	case "registrationIdentifier", "registrationID", "licenseType", "userID", "domain", "orgUnit",
		"serialNumber", "serialNo", "digipassInstanceID", "expiresAt", "deviceCode", "description", "salt", "encryptedCounter":
		return value
	case "challengeKey", "requestKey":
		if validKey(value) { // not wrapped
			return value
		}
		return abbreviate(value)
	case "clientEphemeralPublicKey", "serverEphemeralPublicKey", "clientEvidenceMessage", "serverEvidenceMessage",
		"encryptedLicenseActivationMessage", "data", "mac", "instanceActivationMessage", "signature",
		"requestMessage", "encryptedLoginDetails", "encryptedChallengeKey", "encryptedNotificationID":
		return abbreviate(value)
	default:
		return hidden
	}
}

func abbreviate(digits string) string {
	if len(digits) <= 2*shownDigits {
		return hidden
	}
	return fmt.Sprintf("%s…%s (%d digits)", digits[:shownDigits], digits[len(digits)-shownDigits:], len(digits))
}
