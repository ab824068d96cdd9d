package authserver

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// codeStates are the states that each of the four result codes can have in an answer.
var codeStates = []string{"success", "failure", "absent"}

// codesIn returns result codes in these states.
func codesIn(states [4]string) string {
	texts := map[string][4]string{
		"success": {"RET_SUCCESS", "STAT_SUCCESS", "0", "0"},
		"failure": {"RET_FAILURE", "STAT_LOCKED", "-1", "1007"},
	}
	var b strings.Builder
	for i, name := range []string{"returnCodeEnum", "statusCodeEnum", "returnCode", "statusCode"} {
		if states[i] != "absent" {
			b.WriteString("<" + name + ">" + texts[states[i]][i] + "</" + name + ">")
		}
	}
	return "<resultCodes>" + b.String() + "</resultCodes>"
}

// For each command, an answer is a success if all four result codes mean success and a refusal if
// all mean failure. In all other cases it cannot be used and is a failure of the instance.
func TestResultCodesAgree(t *testing.T) {
	t.Parallel()
	var all [][4]string
	for _, a := range codeStates {
		for _, b := range codeStates {
			for _, c := range codeStates {
				for _, d := range codeStates {
					all = append(all, [4]string{a, b, c, d})
				}
			}
		}
	}
	for name, sample := range samples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := ""
			in := stub("primary", sending(func(w http.ResponseWriter, r *http.Request, command string) { answering(answer)(w, r, command) }))
			for _, states := range all {
				in.State = new(State)
				s := newServers(t, Config{Instances: []Instance{in}, Breaker: breaker.Settings{Failures: 1, Cooldown: DefaultCooldown}})
				answer = sample.answerWith(codesIn(states))
				got, err := sample.call(t.Context(), s, "primary")
				refusal, refused := errors.AsType[*Refusal](err)
				unusable := false
				switch states {
				case [4]string{"success", "success", "success", "success"}:
					if err != nil || !reflect.DeepEqual(got, sample.want("primary")) {
						t.Errorf("%v: %+v, %v", states, got, err)
					}
				case [4]string{"failure", "failure", "failure", "failure"}:
					if !refused || refusal.Codes != soap.FailureCodes("STAT_LOCKED", 1007) {
						t.Errorf("%v: %v", states, err)
					}
				default:
					unusable = true
					if checkFailure(t, name, err, ErrBadAnswer); refused {
						t.Errorf("%v: %v", states, err)
					}
				}
				if err != nil && !got.isZero() {
					t.Errorf("%v: %+v", states, got)
				}
				if open := in.State.breaker.RetryAfter() > 0; open != unusable {
					t.Errorf("%v: open is %v", states, open)
				}
			}
		})
	}
}

// Unknown codes mean failure. Numbers may be written in several ways, names only in one.
func TestResultCodesNotUnderstood(t *testing.T) {
	t.Parallel()
	sample := samples["authUser (OTP)"]
	for _, test := range []struct{ returnEnum, statusEnum, returnCode, statusCode, want string }{
		{"RET_SUCCESS", "STAT_SUCCESS", "+0", "00", "success"},
		{" RET_SUCCESS\n", "STAT_SUCCESS", "0", " 0 ", "success"},
		{"RET_FAILURE", "STAT_NOT_FOUND", "-1", "1000", "STAT_NOT_FOUND"},
		{"RET_FAILURE", "STAT_INVCREDENTIALS", "-1", "-13", "STAT_INVCREDENTIALS"},
		{"RET_TWO_STEP", "STAT_NEW", "7", "4711", "STAT_NEW"},
		{"RET_TWO_STEP", "STAT_SUCCESS", "7", "0", "nonsense"},
		{"RET_TWO_STEP", "STAT_SUCCESS", "0", "0", "nonsense"},
		{"RET_SUCCESS", "STAT_NEW", "0", "0", "nonsense"},
		{"ret_success", "STAT_SUCCESS", "0", "0", "nonsense"},
		{"RET_SUCCESS", "Success", "0", "0", "nonsense"},
		{"RET_SUCCESS_", "STAT_SUCCESS", "0", "0", "nonsense"},
		{"RET_SUCCESS", "STAT_SUCCESS", "0", "1", "nonsense"},
		{"RET_SUCCESS", "STAT_SUCCESS", "-1", "0", "nonsense"},
		{"RET_FAILURE", "STAT_COMMS", "0", "0", "nonsense"},
		{"RET_FAILURE", "STAT_LOCKED", "-1", "0", "nonsense"},
		{"RET_SUCCESS", "STAT_SUCCESS", "0", "0.0", "nonsense"},
		{"RET_SUCCESS", "STAT_SUCCESS", "0x0", "0", "nonsense"},
		{"RET_SUCCESS", "STAT_SUCCESS", "0", "zero", "nonsense"},
		{"RET_SUCCESS", "STAT_SUCCESS", "0", "4294967296", "nonsense"},
		{"", "STAT_SUCCESS", "0", "0", "nonsense"},
		{"RET_SUCCESS", "STAT_SUCCESS", "", "0", "nonsense"},
		{"RET_FAILURE", "", "-1", "1007", "nonsense"},
	} {
		text := success
		for _, replace := range [][2]string{
			{"RET_SUCCESS<", test.returnEnum + "<"},
			{"STAT_SUCCESS<", test.statusEnum + "<"},
			{"<returnCode>0<", "<returnCode>" + test.returnCode + "<"},
			{"<statusCode>0<", "<statusCode>" + test.statusCode + "<"},
		} {
			text = strings.Replace(text, replace[0], replace[1], 1)
		}
		s := newServers(t, Config{Instances: []Instance{stub("primary", sending(answering(sample.answerWith(text))))}})
		if _, err := sample.call(t.Context(), s, ""); describe(err) != test.want {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// A status message turns only a success into a refusal. Contradictory codes stay unusable.
func TestContradictionWithStatusMessage(t *testing.T) {
	t.Parallel()
	sample := samples["authUser (OTP)"]
	sample.answer = strings.Replace(sample.answer, "<resultAttribute>", "<resultAttribute>"+attribute("CREDFLD_STATUS_MESSAGE", "wrong password"), 1)
	for _, test := range []struct {
		states [4]string
		want   string
	}{
		{[4]string{"success", "success", "success", "success"}, "STAT_INVCREDENTIALS"},
		{[4]string{"failure", "failure", "failure", "failure"}, "STAT_LOCKED"},
		{[4]string{"failure", "success", "success", "success"}, "nonsense"},
		{[4]string{"success", "success", "success", "failure"}, "nonsense"},
	} {
		s := newServers(t, Config{Instances: []Instance{stub("primary", sending(answering(sample.answerWith(codesIn(test.states)))))}})
		if _, err := sample.call(t.Context(), s, ""); describe(err) != test.want {
			t.Errorf("%v: %v", test.states, err)
		}
	}
}
