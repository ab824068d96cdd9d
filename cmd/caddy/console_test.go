package main

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// registerInSandbox registers the sandbox's user and returns the content of the activation image.
func registerInSandbox(t *testing.T, g *testbed.Gateway) (image string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+testbed.RegisterPath,
		strings.NewReader(`{"userID":"jane.doe","domain":"mydomain.com","staticPassword":"sandbox"}`))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth("sandbox-back-end", "")
	got, err := g.Do(r)
	require.NoError(t, err)
	var answer struct {
		Result struct{ ActivationImage string }
	}
	require.NoError(t, json.Unmarshal([]byte(got.Body), &answer), got.Body)
	require.NotEmpty(t, answer.Result.ActivationImage, got.Body)
	return answer.Result.ActivationImage
}

// In a real browser, the console of the sandbox activates a phone from a pasted image and shows
// every value, approves a signature and a login, is refused the cancellation of another phone,
// and says what a wrong password and a wrong key mean. It sends keys to its own origin only,
// stores nothing, and has what people need who use it on a phone, with the keyboard or with a
// screen reader.
func TestBrowserConsole(t *testing.T) {
	t.Parallel()
	g, _ := startSandbox(t)
	var got struct {
		Looks []struct {
			ColorScheme, Ground, Said string
			Complaints, Violations    []string
			Width, Widest, Rules      int
		}
		Steps  []struct{ Step, Said string }
		Record []struct{ Name, Value string }
		Kept   struct {
			Cookies, Address          string
			Local, Session, Databases int
		}
		Left       string
		Complaints []string
		Calls      []struct{ Method, URL, Authorization, Cookie, Referer string }
	}
	address := g.URL + "/console.html"
	runInBrowser(t, "console.mjs", map[string]string{"url": address, "image": registerInSandbox(t, g)}, &got)

	grounds := map[string]string{}
	require.Len(t, got.Looks, 4)
	for _, look := range got.Looks {
		assert.Empty(t, look.Complaints)
		assert.Contains(t, look.Said, "have proved that they know the activation password")
		assert.Equal(t, look.Width, look.Widest, "the page scrolls sideways")
		assert.Empty(t, look.Violations, "%s, %d pixels", look.ColorScheme, look.Width)
		assert.Greater(t, look.Rules, 20)
		grounds[look.ColorScheme] = look.Ground
	}
	assert.NotEqual(t, grounds["light"], grounds["dark"])

	var names []string
	for _, v := range got.Record {
		names = append(names, v.Name)
		assert.NotEmpty(t, v.Value, v.Name)
	}
	const provisioning = "/rest/v2/provisioning/"
	assert.Equal(t, []string{
		"a", "A", provisioning + "DSAPPSRPGenerateEphemeralKey", "salt", "B", "u", "innerHash", "x", "S", "K", "M1",
		provisioning + "DSAPPSRPGenerateActivationData", "M2", "licenseActivationMessage macKey", "licenseActivationMessage encryptionKey", "activationMessage",
	}, names)

	want := []struct{ step, said string }{
		{"paste the image", "The image is for jane.doe in mydomain.com."},
		{"Run the exchange", "The licence is a multi-device licence."},
		{"Ask the simulated device", "Device code: filled in."},
		{"Add the device", "The device is added."},
		{"Sign with the simulated device", "Signature of the device: filled in."},
		{"Complete the activation", "of jane.doe in mydomain.com."},
		{"Have the bank request a signature", "Key of the request: filled in."},
		{"Retrieve the request", "The request is retrieved."},
		{"Sign with the simulated device", "filled in."},
		{"screen", "The device shows: Transfer, Amount 250.00 EUR, To Bob."},
		{"Approve the request", "Approved by jane.doe."},
		{"outcome", "The bank was told: approved for jane.doe"},
		{"Have the bank request a login", "Key of the request: filled in."},
		{"Retrieve the request", "The request is retrieved."},
		{"Sign with the simulated device", "filled in."},
		{"screen", "The device shows: Login, message Log in to the bank."},
		{"Approve the request", "Approved by jane.doe."},
		{"outcome", "The bank was told: approved for jane.doe"},
		{"Have the bank request a signature", "Key of the request: filled in."},
		{"Retrieve the request", "The request is retrieved."},
		{"Take another serial number", "filled in."},
		{"Cancel the request", "Failed: cancelAuthSignatureRequest was refused: "},
		{"Wrap it with the simulated device", "filled in."},
		{"Cancel the request", "The request is cancelled."},
		{"outcome", "The bank was told: not approved"},
		{"Register jane.doe for a standard licence", "filled in."},
		{"Run the exchange", "Failed: DSAPPSRPGenerateActivationData was refused: STAT_INVCREDENTIALS"},
		{"Run the exchange", "Failed: DSAPPSRPGenerateEphemeralKey: the API key is not accepted (HTTP status 401). Check the front-end key."},
		{"Run the exchange", "The licence is a standard licence."},
		{"Ask the simulated device", "One-time password: filled in."},
		{"Complete the activation", "of jane.doe in mydomain.com."},
	}
	require.Len(t, got.Steps, len(want))
	for i, w := range want {
		assert.Equal(t, w.step, got.Steps[i].Step)
		assert.Contains(t, got.Steps[i].Said, w.said, w.step)
	}

	assert.Empty(t, got.Kept.Cookies)
	assert.Equal(t, address, got.Kept.Address)
	assert.Zero(t, got.Kept.Local+got.Kept.Session+got.Kept.Databases)
	assert.Empty(t, got.Left, "values that a loaded page still has")
	// The browser reports the refusal of the wrong key itself.
	require.Len(t, got.Complaints, 1)
	assert.Contains(t, got.Complaints[0], "401")

	key := "Basic " + base64.StdEncoding.EncodeToString([]byte("sandbox-front-end:"))
	authorized := 0
	for _, c := range got.Calls {
		assert.True(t, strings.HasPrefix(c.URL, g.URL+"/"), c.URL)
		assert.Empty(t, c.Cookie+c.Referer, c.URL)
		switch {
		case !strings.Contains(c.URL, "/rest/v2/"):
			assert.Empty(t, c.Authorization, c.URL)
		case c.Authorization == key:
			authorized++
		}
	}
	assert.Greater(t, authorized, 15)
}
