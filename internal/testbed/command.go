//go:build linux

package testbed

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/dsapp-gateway/dsapp-gateway/internal/soapanswer"
)

// What surrounds the body of an answer in XML.
const (
	EnvelopeStart = `<?xml version="1.0" encoding="UTF-8"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>`
	EnvelopeEnd   = `</e:Body></e:Envelope>`
)

// Retries says to which instance a command may be sent again after a fault.
type Retries int

const (
	// RetryUnsent allows the next instance if nothing of the command was sent.
	RetryUnsent Retries = iota
	// RetryBroken allows the next instance also if the server said that it is out of order.
	RetryBroken
	// RetryHarmless allows one more instance after any fault.
	RetryHarmless
)

// Command is a command of an authentication server and the request that makes a gateway send
// it. A Faulty server recognises it.
type Command struct {
	Operation string // of the authentication server, as in the log
	Retries   Retries
	Search    bool // each instance may be the only one that knows what the command is about

	// Path of the service, API key, and body of the request with one value of the test's choice.
	Path, Key string
	Body      func(value string) string

	Element string // of the answer
	result  string // in that element, with a place for a number
}

// The commands.
var (
	Registering = &Command{
		Operation: "PROVISIONCMD_MDL_REGISTER", Path: OfflinePath, Key: BackEndKey,
		Body: func(secret string) string {
			return fmt.Sprintf(`{"userID":"FLT.user","domain":%q,"password":%q}`, Domain, secret)
		},
		Element: "provisioningExecuteResponse",
		result: "<resultAttribute><attributes><attributeID>PROVFLD_REGISTRATIONID</attributeID><value>FLT%d</value></attributes>" +
			"<attributes><attributeID>PROVFLD_ACTIVATION_MESSAGE</attributeID><value>0A0B</value></attributes></resultAttribute>",
	}
	Authenticating = &Command{
		Operation: "authUser", Path: LoginPath, Key: FrontEndKey,
		Body: func(secret string) string {
			return fmt.Sprintf(`{"userID":"FLT.user","domain":%q,"password":%q}`, Domain, secret)
		},
		Element: "authUserResponse",
		result:  "<resultAttribute><attributes><attributeID>CREDFLD_USERID</attributeID><value>FLT%d</value></attributes></resultAttribute>",
	}
	Retrieving = &Command{
		Operation: "getPreparedSecureChallenge", Retries: RetryBroken, Search: true, Path: Login.RetrievePath, Key: FrontEndKey,
		Body: func(secret string) string {
			return fmt.Sprintf(`{"serialNumber":"FLT1234567-1","challengeKey":%q}`, secret)
		},
		Element: "getPreparedSecureChallengeResponse",
		result:  "<result><requestMessage>0A0B</requestMessage><more>%d</more></result>",
	}
	Notifying = &Command{
		Operation: "updateDevicePNID", Retries: RetryHarmless, Path: NotificationPath, Key: FrontEndKey,
		Body: func(secret string) string {
			return fmt.Sprintf(`{"userID":"FLT.user","domain":%q,"digipassInstanceID":"FLT1234567-1","encryptedNotificationID":%q}`, Domain, secret)
		},
		Element: "updateDevicePNIDResponse",
		result:  "<more>%d</more>",
	}
	// AddingDevice is sent to the instance that made a registration, its value.
	AddingDevice = &Command{
		Operation: "PROVISIONCMD_MDL_ADD_DEVICE", Path: AddDevicePath, Key: FrontEndKey,
		Body: func(registration string) string {
			return fmt.Sprintf(`{"registrationIdentifier":%q,"deviceCode":"12345678901234567890123456"}`, registration)
		},
		Element: "provisioningExecuteResponse",
		result: "<resultAttribute><attributes><attributeID>PROVFLD_INSTANCE_ACTIVATION_MESSAGE</attributeID><value>0A0B</value></attributes></resultAttribute>" +
			"<more>%d</more>",
	}

	// Commands are those that can be sent without a registration, at least one of each kind of
	// Retries.
	Commands = []*Command{Registering, Authenticating, Retrieving, Notifying}
)

// answerCount makes every answer a different one.
var answerCount atomic.Int64

// Answer returns a success in XML.
func (c *Command) Answer() string {
	return EnvelopeStart + "<" + c.Element + ">" + soapanswer.Success + fmt.Sprintf(c.result, answerCount.Add(1)) + "</" + c.Element + ">" + EnvelopeEnd
}

// Refusal returns a refusal in XML.
func (c *Command) Refusal(status string, code int, description string) string {
	return EnvelopeStart + "<" + c.Element + ">" + soapanswer.Failed(status, code) + "<errorStack><errors><errorCode>" +
		strconv.Itoa(code) + "</errorCode><errorDesc>" + description + "</errorDesc></errors></errorStack></" + c.Element + ">" + EnvelopeEnd
}

// Send makes the call that sends a command.
func (g *Gateway) Send(ctx context.Context, c *Command, value string) (Reply, error) {
	return g.TryPost(ctx, c.Path, c.Key, c.Body(value))
}
