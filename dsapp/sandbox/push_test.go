package sandbox

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Push notifications are sent to activated devices with a notification ID. A serial number
// selects one, the last 20 are kept, replicas share them, and PushHandler lists them.
func TestPushes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, a := newServerWithDevice(t)
		silent := newAuthenticator(t, s)
		if got := status(t, s, pushSignature(silent.SerialNumber)); got != "STAT_NOT_FOUND" {
			t.Errorf("push without a notification ID: %s", got)
		}
		message, err := silent.WrapNotificationID("x")
		if err != nil {
			t.Fatal(err)
		}
		_, answer := send(t, s, text11, updateNotificationID(silent.SerialNumber, message))
		wantAnswer(t, "updateDevicePNID", answer, golden("prov", `<prov:updateDevicePNIDResponse>`+typedSuccess+`</prov:updateDevicePNIDResponse>`))
		foreign, err := a.WrapNotificationID("x")
		if err != nil {
			t.Fatal(err)
		}
		for what, c := range map[string]struct{ body, want string }{
			"message of another device": {updateNotificationID(silent.SerialNumber, foreign), "STAT_INVDATA"},
			"message in clear":          {updateNotificationID(silent.SerialNumber, "0102"), "STAT_INVDATA"},
			"unknown serial number":     {updateNotificationID("VDS1000120-9", message), "STAT_NOT_FOUND"},
			"licence":                   {updateNotificationID("VDS1000120", message), "STAT_NOT_FOUND"},
			"unknown user":              {strings.Replace(updateNotificationID(silent.SerialNumber, message), "jane.doe", "jim", 1), "STAT_USER_UNKNOWN"},
			"another user":              {strings.Replace(updateNotificationID(silent.SerialNumber, message), "jane.doe", "john", 1), "STAT_NOT_FOUND"},
			"user without a device":     {strings.Replace(authUser(password("push")), "jane.doe", "john", 1), "STAT_NOT_FOUND"},
			"unknown device":            {pushSignature("VDS1000120-9"), "STAT_NOT_FOUND"},
		} {
			if got := status(t, s, c.body); got != c.want {
				t.Errorf("%s: %s, want %s", what, got, c.want)
			}
		}

		replica := s.Replica()
		var keys []string
		for i := range 21 {
			b := startBlockedCall(t, []*Server{s, replica}[i%2], pushSignature(a.SerialNumber))
			keys = append(keys, lastKey(t, s, a.SerialNumber))
			b.cancel()
			b.result(t)
		}
		pushes := s.Pushes(a.SerialNumber)
		if len(pushes) != 20 || len(s.Pushes(silent.SerialNumber)) != 0 || len(replica.Pushes("")) != 20 {
			t.Fatalf("%d pushes", len(pushes))
		}
		for i, p := range pushes {
			if p.Key != keys[i+1] || p.Kind != KindSignature || p.SerialNumber != "VDS1000120-1" || p.Title != "Payment" ||
				p.Message == "" || p.NotificationID != "device of VDS1000120-1" || !p.SentAt.Equal(time.Now()) {
				t.Errorf("push %d: %+v, key %s", i, p, keys[i+1])
			}
		}

		w := httptest.NewRecorder()
		s.PushHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/pushes?serialNumber=VDS1000120-1", nil))
		var listed []Push
		if err := json.Unmarshal(w.Body.Bytes(), &listed); err != nil || len(listed) != 20 || listed[19].Key != keys[20] || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%v: %s", err, w.Body)
		}
		w = httptest.NewRecorder()
		s.PushHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/pushes?serialNumber=VDS1000120-2", nil))
		if got := w.Body.String(); got != "[]\n" {
			t.Errorf("no pushes: %s", got)
		}
		w = httptest.NewRecorder()
		s.PushHandler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/pushes", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST: HTTP status %d", w.Code)
		}
	})
}
