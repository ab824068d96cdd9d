package sandbox

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

//go:generate go test . -run ^TestPublishedDevice$ -count=1 -update

var update = flag.Bool("update", false, "write the published example of the device anew")

// publishedDevice has the form of docs/vectors/sandbox/device.json.
type publishedDevice struct {
	License struct {
		SerialNumber      string `json:"serialNumber"`
		Secret            string `json:"secret"`
		ActivationMessage string `json:"activationMessage"`
	} `json:"license"`
	Device struct {
		Number                    uint32 `json:"number"`
		DeviceCode                string `json:"deviceCode"`
		InstanceActivationMessage string `json:"instanceActivationMessage"`
		SerialNumber              string `json:"serialNumber"`
		Secret                    string `json:"secret"`
		Signature                 string `json:"signature"`
	} `json:"device"`
	Requests   []publishedRequest `json:"requests"`
	WrappedKey publishedMessage   `json:"wrappedKey"`
	WrappedID  publishedMessage   `json:"wrappedNotificationID"`
	OneTime    []string           `json:"oneTimePasswords"`
	Standard   struct {
		SerialNumber             string   `json:"serialNumber"`
		Secret                   string   `json:"secret"`
		ActivationCode           string   `json:"activationCode"`
		EventReactivationCounter string   `json:"eventReactivationCounter"`
		OneTime                  []string `json:"oneTimePasswords"`
		DerivationCode           string   `json:"derivationCode"`
	} `json:"standard"`
}

type publishedMessage struct {
	Content string `json:"content"`
	Message string `json:"message"`
}

type publishedRequest struct {
	publishedMessage
	Signature string `json:"signature"`
}

// The published example of the sandbox's device, with which people test a device of their own,
// has the values of this package. Only the nonces of its messages are random, and kept.
func TestPublishedDevice(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "vectors", "sandbox", "device.json")
	var old publishedDevice
	if content, err := os.ReadFile(path); err == nil {
		require.NoError(t, json.Unmarshal(content, &old))
	} else {
		require.True(t, *update, err)
	}
	content, err := json.MarshalIndent(exampleDevice(t, old), "", "  ")
	require.NoError(t, err)
	content = append(content, '\n')
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, content, 0o644))
	}
	published, err := os.ReadFile(path)
	require.NoError(t, err)

	assert.Equal(t, string(content), string(published), "run go generate ./dsapp/sandbox")
}

// exampleDevice computes the example. Messages of old whose contents are still the same stay.
func exampleDevice(t *testing.T, old publishedDevice) (p publishedDevice) {
	t.Helper()
	secret := func(first byte) (s [secretSize]byte) {
		for i := range s {
			s[i] = first + byte(i)
		}
		return s
	}

	l := license{serial: "VDS1000120", secret: secret(0x00)}
	p.License.SerialNumber, p.License.Secret, p.License.ActivationMessage = l.serial, upperHex(l.secret[:]), l.activationMessage()
	d := NewDevice(1234567890)
	p.Device.Number = d.id
	var err error
	p.Device.DeviceCode, err = d.ActivateLicense(p.License.ActivationMessage)
	require.NoError(t, err)
	key := secret(0x40)
	p.Device.InstanceActivationMessage = l.instanceMessage(p.Device.DeviceCode, 1, key)
	p.Device.Signature, err = d.ActivateInstance(p.Device.InstanceActivationMessage)
	require.NoError(t, err)
	p.Device.SerialNumber, p.Device.Secret = d.InstanceSerial(), upperHex(key[:])
	a, err := d.Authenticator("jane.doe", "mydomain.com")
	require.NoError(t, err)

	// message returns the old message with the content, or a new one.
	message := func(old publishedMessage, flags uint16, kind, content string) publishedMessage {
		if opened, err := a.channel().open(flags, kind, old.Message); err == nil && bytes.Equal(opened, []byte(content)) {
			return publishedMessage{content, old.Message}
		}
		m, err := a.channel().seal(flags, kind, []byte(content))
		require.NoError(t, err)
		return publishedMessage{content, m}
	}
	for i, r := range []Request{
		{Kind: KindLogin, Key: "5EC2E7", UserID: a.UserID, Domain: a.Domain, Title: "Log in to the bank"},
		{Kind: KindSignature, Key: "7A11C0DE", UserID: a.UserID, Domain: a.Domain, Title: "Transfer", Fields: []RequestField{{"Amount", "250.00 EUR"}, {"To", "Bob"}}},
	} {
		content, err := r.content()
		require.NoError(t, err)
		var was publishedMessage
		if i < len(old.Requests) {
			was = old.Requests[i].publishedMessage
		}
		m := message(was, messageFlags, requestContent, string(content))
		signature, err := a.Sign(m.Message)
		require.NoError(t, err)
		p.Requests = append(p.Requests, publishedRequest{m, signature})
	}
	p.WrappedKey = message(old.WrappedKey, informationFlags, wrappedKeyContent, "7A11C0DE")
	p.WrappedID = message(old.WrappedID, informationFlags, notificationIDContent, "phone-1")
	p.OneTime = []string{a.OneTimePassword(), a.OneTimePassword()}

	s := license{serial: "VDS1000121", secret: secret(0x80)}
	p.Standard.SerialNumber, p.Standard.Secret, p.Standard.ActivationCode = s.serial, upperHex(s.secret[:]), s.activationCode()
	p.Standard.EventReactivationCounter = reactivationCounter(258)
	standard, err := ActivateStandard(p.Standard.ActivationCode, p.Standard.EventReactivationCounter, "jane.doe", "mydomain.com")
	require.NoError(t, err)
	p.Standard.DerivationCode = standard.DerivationCode()
	p.Standard.OneTime = []string{standard.OneTimePassword(), standard.OneTimePassword()}
	return p
}
