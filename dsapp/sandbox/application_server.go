package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// ApplicationServer simulates the bank's application server, which requests logins and
// signatures from the authentication server by SOAP. It is safe for concurrent use. Its
// fields must not be changed during use.
type ApplicationServer struct {
	// URL of the authentication server.
	URL string
	// Client sends the calls, http.DefaultClient if nil. Its timeout must be longer than the
	// authentication server waits for a device.
	Client *http.Client
	// ComponentType of the client record, PushComponentType if empty.
	ComponentType string
}

// SignatureRequest is a transaction that a user is asked to sign.
type SignatureRequest struct {
	UserID string
	Domain string // may be empty
	// SerialNumber of the authenticator instance; if empty, all instances with a
	// notification ID get the request.
	SerialNumber string
	Title        string // may be empty
	Fields       []RequestField
	// Key of a request by PrepareSignature. All other fields but UserID and Domain are
	// ignored then.
	Key string
}

// LoginRequest is a login that a user is asked to approve.
type LoginRequest struct {
	UserID string
	Domain string // may be empty
	// SerialNumber of the authenticator instance; if empty, all instances with a
	// notification ID get the request. PrepareLogin ignores it.
	SerialNumber string
	// Message for the user, required by PrepareLogin.
	Message string
	// Key of a request by PrepareLogin. All other fields but UserID and Domain are ignored
	// then.
	Key string
}

// RequestSignature requests a signature and waits until a device completes or cancels the
// request or the authentication server's timeout is over. The error is a *RefusalError
// unless a device completed the request.
func (a *ApplicationServer) RequestSignature(ctx context.Context, r SignatureRequest) (AuthenticatedUser, error) {
	data, err := a.send(ctx, signatureScenario, "authSignatureRequest", func(w *writer) {
		w.leaf("componentType", a.componentType())
		w.open("user")
		w.leaf("userID", r.UserID)
		if r.Domain != "" {
			w.leaf("domain", r.Domain)
		}
		w.close("user")
		if r.Key != "" {
			w.leaf("requestKey", r.Key)
			return
		}
		if r.SerialNumber != "" {
			w.leaf("serialNumber", r.SerialNumber)
		}
		w.open("push")
		if r.Title != "" {
			w.leaf("transactionTitle", r.Title)
		}
		dataFields(w, r.Fields)
		w.close("push")
	})
	if err != nil {
		return AuthenticatedUser{}, err
	}
	return AuthenticatedUser{UserID: data["userID"], Domain: data["domain"], SerialNumber: data["serialNumber"]}, nil
}

// PrepareSignature creates a request whose key the bank's site shows as an image for the
// phone to scan, and returns the key. A refusal is a *RefusalError.
func (a *ApplicationServer) PrepareSignature(ctx context.Context, r SignatureRequest) (key string, err error) {
	data, err := a.send(ctx, signatureScenario, "genRequest", func(w *writer) {
		attributes(w, "attributeSet", []attribute{
			{signComponentType, a.componentType(), stringType},
			{signUserID, r.UserID, stringType},
			{signDomain, r.Domain, stringType},
			{signSerialNumber, r.SerialNumber, stringType},
			{signTransactionTitle, r.Title, stringType},
		})
		dataFields(w, r.Fields)
	})
	if err != nil {
		return "", err
	}
	return requestKey(data, signRequestKey)
}

// RequestLogin requests a login and waits as RequestSignature does. The error is a
// *RefusalError unless a device completed the request.
func (a *ApplicationServer) RequestLogin(ctx context.Context, r LoginRequest) (AuthenticatedUser, error) {
	set := []attribute{
		{credComponentType, a.componentType(), stringType},
		{credUserID, r.UserID, stringType},
		{credDomain, r.Domain, stringType},
		{credPasswordFormat, combinedPassword, unsignedIntType},
	}
	if r.Key != "" {
		set = append(set, attribute{credChallengeKey, r.Key, stringType})
	} else {
		set = append(set,
			attribute{credSerialNumber, r.SerialNumber, stringType},
			attribute{credChallengeMessage, r.Message, stringType},
			attribute{credPassword, PushKeyword, stringType})
	}
	data, err := a.send(ctx, authenticationScenario, "authUser", func(w *writer) { attributes(w, "credentialAttributeSet", set) })
	if err != nil {
		return AuthenticatedUser{}, err
	}
	return AuthenticatedUser{
		UserID: data[credUserID], Domain: data[credDomain],
		OrganizationalUnit: data[credOrganizationalUnit], SerialNumber: data[credSerialNumber],
	}, nil
}

// PrepareLogin creates a request whose key the bank's site shows as an image for the phone
// to scan, and returns the key. A refusal is a *RefusalError.
func (a *ApplicationServer) PrepareLogin(ctx context.Context, r LoginRequest) (key string, err error) {
	data, err := a.send(ctx, authenticationScenario, "getSecureChallenge", func(w *writer) {
		attributes(w, "credentialAttributeSet", []attribute{
			{credComponentType, a.componentType(), stringType},
			{credUserID, r.UserID, stringType},
			{credDomain, r.Domain, stringType},
			{credChallengeMessage, r.Message, stringType},
		})
	})
	if err != nil {
		return "", err
	}
	return requestKey(data, credChallengeKey)
}

func requestKey(data map[string]string, name string) (string, error) {
	if data[name] == "" {
		return "", fmt.Errorf("answer without %s", name)
	}
	return data[name], nil
}

func (a *ApplicationServer) componentType() string {
	if a.ComponentType != "" {
		return a.ComponentType
	}
	return PushComponentType
}

// An attribute of a request. It is left out if its value is empty.
type attribute struct {
	name, value string
	typ         valueType
}

func attributes(w *writer, set string, list []attribute) {
	w.open(set)
	for _, a := range list {
		if a.value != "" {
			w.attribute(datum{name: a.name, value: a.value}, a.typ)
		}
	}
	w.close(set)
}

func dataFields(w *writer, fields []RequestField) {
	w.open(dataFieldList)
	for _, f := range fields {
		w.open("dataField")
		w.leaf("key", f.Key)
		w.leaf("value", f.Value)
		w.close("dataField")
	}
	w.close(dataFieldList)
}

// send calls a command in SOAP 1.1 and returns the values of a success by the names of
// their attributes or elements.
func (a *ApplicationServer) send(ctx context.Context, c *scenario, operation string, content func(*writer)) (map[string]string, error) {
	w := newWriter(c, Variant{})
	w.envelope(soap11, "", func() {
		name := w.p.operation + ":" + operation
		w.open(name)
		content(w)
		w.close(name)
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.URL, strings.NewReader(w.String()))
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", operation, err)
	}
	r.Header.Set("Content-Type", soap11.contentType)
	r.Header.Set("SOAPAction", `""`)

	client := a.Client
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", operation, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerSize))
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", operation, err)
	}
	data, err := readSOAPAnswer(operation, body)
	if refused := (*RefusalError)(nil); err != nil && !errors.As(err, &refused) {
		return nil, fmt.Errorf("answer of %s, with HTTP status %d: %w", operation, response.StatusCode, err)
	}
	return data, err
}

// readSOAPAnswer returns the values of a successful answer in either form. The error is a
// *RefusalError if the answer has result codes.
func readSOAPAnswer(operation string, body []byte) (map[string]string, error) {
	answer, err := readEnvelope(soap11, body)
	if err != nil {
		return nil, err
	}
	switch answer.name.Local {
	case operation + "Response", operation + "Respond": // the interface uses both
	case "Fault":
		return nil, fmt.Errorf("a Fault: %s", answer.leaf("faultstring"))
	default:
		return nil, errors.New("it is for another command")
	}
	codes := answer.find("resultCodes")
	if codes == nil {
		return nil, errors.New("it has no result codes")
	}
	outcome := ResultCodes{ReturnCodeEnum: codes.leaf("returnCodeEnum"), StatusCodeEnum: codes.leaf("statusCodeEnum")}
	for name, to := range map[string]*int{"returnCode": &outcome.ReturnCode, "statusCode": &outcome.StatusCode} {
		if *to, err = strconv.Atoi(codes.leaf(name)); err != nil {
			return nil, fmt.Errorf("%s is not a number", name)
		}
	}

	data := make(map[string]string)
	if set := answer.find("resultAttribute"); set != nil {
		for _, e := range set.children {
			data[e.leaf("attributeID")] = e.leaf("value")
		}
	}
	if result := answer.find("result"); result != nil {
		result.leaves(data)
	}
	refused := &RefusalError{Call: operation, ResultCodes: outcome}
	if text := data[credStatusMessage]; text != "" {
		refused.Description = fmt.Sprintf("the status message %q: a push login that was rejected or not answered in time ends like this", text)
		return nil, refused
	}
	if outcome.ReturnCode != 0 {
		if stack := answer.find("errors"); stack != nil {
			refused.Description = stack.leaf("errorDesc")
		}
		return nil, refused
	}
	return data, nil
}

// find returns the first descendant of e with a name, in the order of the document, or nil.
// The recursion is not deeper than maxDepth.
func (e *element) find(name string) *element {
	for _, c := range e.children {
		if c.name.Local == name {
			return c
		}
		if found := c.find(name); found != nil {
			return found
		}
	}
	return nil
}

// leaf returns the text of the first child with a name, empty if there is none.
func (e *element) leaf(name string) string {
	for _, c := range e.children {
		if c.name.Local == name {
			return c.text.String()
		}
	}
	return ""
}

// leaves adds the texts of all descendants of e that have no children.
func (e *element) leaves(to map[string]string) {
	for _, c := range e.children {
		if len(c.children) == 0 {
			to[c.name.Local] = c.text.String()
		}
		c.leaves(to)
	}
}
