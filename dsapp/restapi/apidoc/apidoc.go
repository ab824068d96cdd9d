// Package apidoc describes the REST interface in documents that are generated from the table of
// services: an OpenAPI document, and a page for people.
package apidoc

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
)

//go:generate go test . -run ^TestWritten -update

// object is a JSON object whose members keep their order.
type object []property

// property is one member of an object.
type property struct {
	name  string
	value any
}

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		var value bytes.Buffer
		e := json.NewEncoder(&value)
		e.SetEscapeHTML(false)
		if err := e.Encode(m.value); err != nil {
			return nil, err
		}
		b = append(append(append(b, name...), ':'), bytes.TrimSpace(value.Bytes())...)
	}
	return append(b, '}'), nil
}

// marshal returns the JSON text of a value, indented by two spaces.
func marshal(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(value)
	return b.Bytes(), err
}

// requestExample returns an example of a request: every member that has an example.
func requestExample(s *restapi.Service) object {
	o := object{}
	for _, m := range s.Members {
		if m.Example != "" {
			o = append(o, property{m.Name, m.Example})
		}
	}
	return o
}

// ruleOf returns the rule of a member. A required member must not be empty.
func ruleOf(m restapi.Member) form.Rule {
	r := m.Rule
	if m.Required {
		r.Min = max(r.Min, 1)
	}
	return r
}

// successExample returns an example of an answer with every member that is not an object.
func successExample(s *restapi.Service) object {
	var result object
	for _, m := range s.Results {
		switch m.Kind {
		case restapi.KindObject:
		case restapi.KindInteger:
			result = append(result, property{m.Name, json.Number(m.Example)})
		default:
			result = append(result, property{m.Name, m.Example})
		}
	}
	codes, _ := answer(restapi.Success).Example()
	return envelope(s.Version, codes, "", result)
}

// envelope returns the body of an answer.
func envelope(v restapi.Version, codes gateway.ResultCodes, description string, result object) object {
	var o object
	if v == restapi.V1 {
		o = append(object{{"errorCode", codes.ReturnCode}, {"errorMessage", codes.StatusCodeEnum}}, result...)
	} else {
		o = object{{"resultCodes", object{
			{"returnCodeEnum", codes.ReturnCodeEnum},
			{"statusCodeEnum", codes.StatusCodeEnum},
			{"returnCode", codes.ReturnCode},
			{"statusCode", codes.StatusCode},
		}}}
		if len(result) > 0 {
			o = append(o, property{"result", result})
		}
	}
	if description != "" {
		o = append(o, property{"errorDescription", description})
	}
	return o
}

// refusedExample returns an example of a refusal.
func refusedExample(v restapi.Version, status string) object {
	return envelope(v, gateway.ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: status, ReturnCode: -1, StatusCode: statusNumber(status)}, "", nil)
}

// statusNumber returns the number of a status, -1 if the vendor does not publish it.
func statusNumber(name string) int {
	number := -1
	for _, s := range restapi.Statuses() {
		if s.Name == name && s.Number != "" {
			// The table has decimal numbers only.
			_ = json.Unmarshal([]byte(s.Number), &number)
		}
	}
	return number
}

// answer returns the description of an outcome.
func answer(o restapi.Outcome) restapi.Answer {
	a, _ := find(restapi.Answers(), o)
	return a
}

// find returns the answer with an outcome.
func find(answers []restapi.Answer, o restapi.Outcome) (restapi.Answer, bool) {
	for _, a := range answers {
		if a.Outcome == o {
			return a, true
		}
	}
	return restapi.Answer{}, false
}

// keys returns in words which keys may call a service.
func keys(s *restapi.Service) string {
	var words []string
	for _, c := range s.Classes {
		words = append(words, keyWord(c))
	}
	return strings.Join(words, " or ")
}

func keyWord(c apikey.Class) string {
	if c == apikey.BackEnd {
		return "back-end"
	}
	return "front-end"
}

// The functions below return the rows of tables in Markdown. Names of statuses are between
// marks.

func answerRows() string {
	var b strings.Builder
	for _, a := range restapi.Answers() {
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", a.HTTPStatus, cmp.Or(a.Status, "any other"), a.When, a.Then)
	}
	return b.String()
}

func statusRows(mark string) string {
	var b strings.Builder
	for _, s := range restapi.Statuses() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", mark+s.Name+mark, cmp.Or(s.Number, "not published"), s.When)
	}
	return b.String()
}

func refusalRows(refusals []restapi.Refusal, mark string) string {
	var b strings.Builder
	for _, r := range refusals {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", mark+r.Status+mark, r.When, r.Then)
	}
	return b.String()
}
