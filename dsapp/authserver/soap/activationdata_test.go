package soap

import (
	"reflect"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// activationData decodes an answer to DSAPPSRPGenerateActivationData with these members of result.
func activationData(members string) (data DSAPPSRPActivationData, err error) {
	_, err = DSAPPSRPGenerateActivationData.Call(&DSAPPSRPEvidenceRequest{}, &data).Decode(strings.NewReader(envelope(
		`<dsappSRPGenerateActivationDataResponse><status>`+success+`</status><result>`+members+
			`<serverEvidenceMessage>EE</serverEvidenceMessage></result></dsappSRPGenerateActivationDataResponse>`)), &testDialect)
	return data, err
}

// The encrypted items are found under every name that is compatible with the documentation, and
// their values are not changed.
func TestActivationData(t *testing.T) {
	t.Parallel()
	const item = "<encryptedData>dA</encryptedData><encryptedCounter>0C</encryptedCounter><mac>Aa</mac>"
	want := &form.Sealed{Data: "dA", Counter: "0C", MAC: "Aa"}
	for name, test := range map[string]struct {
		members                string
		message, code, counter *form.Sealed
	}{
		"multi-device":       {"<mdl><activationMessage>" + item + "</activationMessage></mdl>", want, nil, nil},
		"no element between": {"<mdl>" + item + "</mdl>", want, nil, nil},
		"element of another name, empty other licence": {
			"<standard/><mdl><encryptedLicense>" + item + "</encryptedLicense><x>00</x></mdl>", want, nil, nil,
		},
		"names of the REST service": {
			"<mdl><m><encryptedLicenseActivationMessage>dA</encryptedLicenseActivationMessage><encryptedCounter>0C</encryptedCounter><mac>Aa</mac></m></mdl>",
			want, nil, nil,
		},
		"initial vector": {"<mdl><m><InitialVector>0C</InitialVector><message>dA</message><MAC>Aa</MAC></m></mdl>", want, nil, nil},
		"counter":        {"<mdl><m><mac>Aa</mac><Counter>0C</Counter><data>dA</data></m></mdl>", want, nil, nil},
		"other members": {
			"<MDL><m>" + item + "<type>hex</type><vectorLength>16</vectorLength><code>ff</code></m><other><a>00</a></other></MDL>", want, nil, nil,
		},
		"other text":     {"<mdl><m><mac>Aa</mac><counter>0C</counter><kind>x</kind><data>dA</data></m></mdl>", want, nil, nil},
		"repeated value": {"<mdl><m>" + item + "<mac>Aa</mac></m></mdl>", want, nil, nil},
		"standard": {
			"<standard><activationCode>" + item + "</activationCode><eventReactivationCounter>" + strings.ReplaceAll(item, "dA", "dB") +
				"</eventReactivationCounter></standard>",
			nil, want, &form.Sealed{Data: "dB", Counter: "0C", MAC: "Aa"},
		},
		"standard, other order and names": {
			"<mdl></mdl><standard><ERCounter><mac>01</mac><vector>02</vector><value>03</value></ERCounter><code>" + item + "</code></standard>",
			nil, want, &form.Sealed{Data: "03", Counter: "02", MAC: "01"},
		},
		"counter as data": {
			"<standard><c>" + item + "</c><eventCounter><encryptedEventCounter>03</encryptedEventCounter><encryptedCounter>02</encryptedCounter><mac>01</mac>" +
				"</eventCounter></standard>",
			nil, want, &form.Sealed{Data: "03", Counter: "02", MAC: "01"},
		},
		"standard without counter": {"<standard><activationCode>" + item + "</activationCode></standard>", nil, want, nil},
		"long": {
			"<mdl><m>" + strings.ReplaceAll(item, "dA", strings.Repeat("A", 65536)) + "</m></mdl>",
			&form.Sealed{Data: strings.Repeat("A", 65536), Counter: "0C", MAC: "Aa"}, nil, nil,
		},
	} {
		out, err := activationData(test.members)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := (DSAPPSRPActivationData{"EE", test.message, test.code, test.counter}); !reflect.DeepEqual(out, want) {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

// Activation data that is ambiguous, incomplete or not in hex is refused.
func TestActivationDataRefuses(t *testing.T) {
	t.Parallel()
	const item = "<encryptedData>dA</encryptedData><encryptedCounter>0C</encryptedCounter><mac>Aa</mac>"
	for name, test := range map[string]struct{ members, problem string }{
		"nothing":            {"", "without activation data"},
		"other element":      {"<other>" + item + "</other>", "without activation data"},
		"at the top":         {item, "without activation data"},
		"counter alone":      {"<standard><counter>" + item + "</counter></standard>", "without activation data"},
		"both licences":      {"<mdl><m>" + item + "</m></mdl><standard><code>" + item + "</code></standard>", "two types of licence"},
		"counter of another": {"<mdl><m>" + item + "</m></mdl><standard><counter>" + item + "</counter></standard>", "two types of licence"},
		"two messages":       {"<mdl><a>" + item + "</a><b>" + item + "</b></mdl>", "several mdl/activationMessage"},
		"two codes":          {"<standard><a>" + item + "</a><b>" + item + "</b></standard>", "several standard/activationCode"},
		"no data":            {"<mdl><m><encryptedCounter>0C</encryptedCounter><mac>Aa</mac></m></mdl>", "without mdl/activationMessage/encryptedData"},
		"no counter":         {"<mdl><m><encryptedData>dA</encryptedData><mac>Aa</mac></m></mdl>", "without mdl/activationMessage/encryptedCounter"},
		"no MAC":             {"<mdl><m><encryptedData>dA</encryptedData><encryptedCounter>0C</encryptedCounter></m></mdl>", "without activation data"},
		"empty MAC":          {"<mdl><m><encryptedData>dA</encryptedData><encryptedCounter>0C</encryptedCounter><mac/></m></mdl>", "without activation data"},
		"two data":           {"<mdl><m><a>dA</a><b>dB</b><counter>0C</counter><mac>Aa</mac></m></mdl>", "different values of mdl/activationMessage/encryptedData"},
		"two counters":       {"<mdl><m><a>dA</a><counter>0C</counter><vector>0D</vector><mac>Aa</mac></m></mdl>", "different values"},
		"two MACs":           {"<mdl><m>" + item + "<mac>Bb</mac></m></mdl>", "different values of mdl/activationMessage/mac"},
		"data no hex":        {"<mdl><m>" + strings.Replace(item, "dA", "sesame", 1) + "</m></mdl>", "encryptedData has a character that is not a hex digit"},
		"counter no hex":     {"<mdl><m>" + strings.Replace(item, "0C", "sesame", 1) + "</m></mdl>", "encryptedCounter has a character that is not a hex digit"},
		"MAC no hex":         {"<mdl><m>" + strings.Replace(item, "Aa", "sesame", 1) + "</m></mdl>", "mac has a character that is not a hex digit"},
		"too long":           {"<mdl><m>" + strings.Replace(item, "dA", strings.Repeat("A", 65537), 1) + "</m></mdl>", "encryptedData is too long"},
	} {
		_, err := activationData(test.members)
		if err == nil || !strings.Contains(err.Error(), test.problem) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever the names of the members, the result is an error or activation data of one type of
// licence, with complete items in hex.
func FuzzActivationData(f *testing.F) {
	f.Add("<mdl><activationMessage><encryptedData>dA</encryptedData><encryptedCounter>0C</encryptedCounter><mac>Aa</mac></activationMessage></mdl>")
	f.Add("<standard><activationCode><a>dA</a><vector>0C</vector><mac>Aa</mac></activationCode><counter><a>0</a><counter>1</counter><mac>2</mac></counter></standard>")
	f.Add("<mdl><a>0</a><b>1</b><mac>2</mac></mdl><standard/>")
	f.Fuzz(func(t *testing.T, members string) {
		out, err := activationData(members)
		if err != nil {
			return
		}
		message, code, counter := out.ActivationMessage, out.ActivationCode, out.EventReactivationCounter
		if (message == nil) == (code == nil) || message != nil && counter != nil {
			t.Errorf("%v, %v, %v", message, code, counter)
		}
		for _, e := range []*form.Sealed{message, code, counter} {
			if e != nil && !(form.IsHex(e.Data) && form.IsHex(e.Counter) && form.IsHex(e.MAC)) {
				t.Errorf("%+v", e)
			}
		}
	})
}
