package apidoc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
)

// OpenAPI returns the description of the REST interface as a document of OpenAPI 3.1.
func OpenAPI() ([]byte, error) {
	var tags []object
	for _, f := range restapi.Flows() {
		tags = append(tags, object{{"name", string(f)}, {"description", f.Describe()}})
	}
	paths := object{}
	for _, s := range restapi.Services() {
		paths = append(paths, property{s.Path, object{{"post", operation(&s)}}})
	}
	return marshal(object{
		{"openapi", "3.1.0"},
		{"info", object{
			{"title", "DSAPP Gateway"},
			{"version", "2"},
			{"summary", "Activation of phones, logins and signatures for mobile banking."},
			{"description", overview()},
			{"license", object{{"name", "Apache License 2.0"}, {"identifier", "Apache-2.0"}}},
		}},
		{"servers", []object{{
			{"url", "https://{gateway}"},
			{"description", "The gateway; by default that of the sandbox."},
			{"variables", object{{"gateway", object{{"default", "localhost:11080"}, {"description", "Host and port."}}}}},
		}}},
		{"security", security([]apikey.Class{apikey.FrontEnd})},
		{"tags", tags},
		{"paths", paths},
		{"components", object{
			{"securitySchemes", securitySchemes()},
			{"headers", headers()},
			{"schemas", schemas()},
			{"responses", responses()},
			{"examples", examples()},
		}},
	})
}

// rules returns paragraphs with what holds for every service.
func rules() []string {
	return []string{
		"Every service is a POST request with a JSON object and is answered with a JSON object. Names of members are case-sensitive. A member that is null counts as missing. Keys, codes and serial numbers are strings: leading zeros count.",
		"An answer with HTTP status 200 is a success only if its return code is 0. Otherwise the gateway or the authentication server has refused the request, and statusCodeEnum says why.",
	}
}

// overview describes what the services have in common.
func overview() string {
	return strings.Join(rules(), "\n\n") + `

## HTTP statuses

| HTTP status | statusCodeEnum | when | then |
|---|---|---|---|
` + answerRows() + `
## Statuses

An authentication server may use others.

| statusCodeEnum | statusCode | when |
|---|---|---|
` + statusRows("")
}

// operationID returns a name of the service that is an identifier in most languages.
func operationID(s *restapi.Service) string { return strings.ReplaceAll(s.Name(), "/", "_") }

func operation(s *restapi.Service) object {
	o := object{
		{"operationId", operationID(s)},
		{"tags", []string{string(s.Flow)}},
		{"summary", summary(s)},
		{"description", details(s)},
	}
	if s.Deprecated {
		o = append(o, property{"deprecated", true})
	}
	if s.Keyed {
		o = append(o, property{"parameters", []object{keyParameter()}})
	}
	o = append(o, property{"security", security(s.Classes)}, property{"requestBody", object{
		{"required", !s.BodyOptional},
		{"content", content(requestSchema(s), object{{"example", object{{"value", requestExample(s)}}}})},
	}})
	answers := object{{"200", object{
		{"description", "The service was carried out if the return code is 0, otherwise it was refused."},
		{"headers", answerHeaders(restapi.Answer{})},
		{"content", content(resultSchema(s), resultExamples(s))},
	}}}
	for _, a := range s.Answers() {
		if a.Outcome != restapi.Success && a.Outcome != restapi.Refused {
			answers = append(answers, property{strconv.Itoa(a.HTTPStatus), ref("responses", responseName(a, s.Version))})
		}
	}
	return append(o, property{"responses", answers})
}

// keyParameter describes the header field with an idempotency key.
func keyParameter() object {
	r := form.IdempotencyKey("").Rule()
	key := fmt.Sprintf("%s{%d,%d}", r.Characters.Pattern, r.Min, r.Max)
	return object{
		{"name", restapi.KeyField},
		{"in", "header"},
		{"description", keyMeaning},
		{"schema", object{{"type", "string"}, {"pattern", `^(` + key + `|"` + key + `")$`}}},
	}
}

// keyMeaning says what an idempotency key is for.
const keyMeaning = "Names the request, so that it can be repeated: one random value for each registration. It may be in double quotes, which are no part of it."

func summary(s *restapi.Service) string {
	text := strings.TrimSuffix(s.Purpose, ".")
	switch s.Channel {
	case restapi.Push:
		text += " (key from a push notification)"
	case restapi.Scan:
		text += " (key from a scanned image)"
	}
	if s.Deprecated {
		text += ", version 1"
	}
	return text
}

func details(s *restapi.Service) string {
	var b strings.Builder
	b.WriteString(s.Purpose)
	if s.Details != "" {
		b.WriteString(" " + s.Details)
	}
	if s.Operation.Repeatable() {
		b.WriteString(" " + repeatable)
	}
	fmt.Fprintf(&b, "\n\nKey: %s.", keys(s))
	if len(s.Refusals) > 0 {
		b.WriteString(" Refusals:\n\n| statusCodeEnum | when | then |\n|---|---|---|\n" + refusalRows(s.Refusals, ""))
	}
	return b.String()
}

// repeatable is said of services that can be repeated.
const repeatable = "It can be repeated: if there is no answer, or 502, 503 or 504, send the same request again, up to three times within a minute. " +
	"If the first one was carried out, its answer comes again, unless the operators have switched that off (requests.repeat)."

// Names of the security schemes.
func schemeName(c apikey.Class) string {
	if c == apikey.BackEnd {
		return "backEndKey"
	}
	return "frontEndKey"
}

// security returns the alternatives of keys.
func security(classes []apikey.Class) []object {
	var alternatives []object
	for _, c := range classes {
		alternatives = append(alternatives, object{{schemeName(c), []string{}}})
	}
	return alternatives
}

func securitySchemes() object {
	scheme := func(who string) object {
		return object{{"type", "http"}, {"scheme", "basic"}, {"description", "The API key of " + who + " as the user name, with an empty password."}}
	}
	return object{
		{schemeName(apikey.FrontEnd), scheme("a mobile application")},
		{schemeName(apikey.BackEnd), scheme("a system of the bank")},
	}
}

func headers() object {
	header := func(description string, schema object) object {
		return object{{"description", description}, {"required", true}, {"schema", schema}}
	}
	return object{
		{"X-Request-Id", header("The ID of the request, which the operators find in their logs.", object{{"type", "string"}, {"pattern", "^[A-Za-z0-9._-]{1,64}$"}})},
		{"Retry-After", header("After how many seconds the request may be sent again.", object{{"type", "integer"}, {"minimum", 1}})},
		{"WWW-Authenticate", header("Asks for HTTP Basic.", object{{"type", "string"}})},
	}
}

func answerHeaders(a restapi.Answer) object {
	o := object{{"X-Request-Id", ref("headers", "X-Request-Id")}}
	if a.RetryAfter {
		o = append(o, property{"Retry-After", ref("headers", "Retry-After")})
	}
	if a.Outcome == restapi.Unauthenticated {
		o = append(o, property{"WWW-Authenticate", ref("headers", "WWW-Authenticate")})
	}
	return o
}

func ref(kind, name string) object { return object{{"$ref", "#/components/" + kind + "/" + name}} }

func content(schema, examples object) object {
	media := object{{"schema", schema}}
	if len(examples) > 0 {
		media = append(media, property{"examples", examples})
	}
	return object{{"application/json", media}}
}

func requestSchema(s *restapi.Service) object {
	properties, required := object{}, []string{}
	for _, m := range s.Members {
		properties = append(properties, property{m.Name, memberSchema(m)})
		if m.Required {
			required = append(required, m.Name)
		}
	}
	schema := object{{"type", "object"}, {"properties", properties}, {"required", required}}
	if len(s.ExactlyOne) > 0 {
		var alternatives []object
		for _, name := range s.ExactlyOne {
			alternatives = append(alternatives, object{{"required", []string{name}}})
		}
		schema = append(schema, property{"oneOf", alternatives})
	}
	return schema
}

func memberSchema(m restapi.Member) object {
	schema := object{{"type", "string"}, {"description", meaning(m)}}
	if m.Rule.Values != nil {
		return append(schema, property{"enum", m.Rule.Values})
	}
	r := ruleOf(m)
	return append(schema, property{"minLength", r.Min}, property{"maxLength", r.Max}, property{"pattern", r.Pattern()})
}

// meaning returns the meaning of a member, with what its schema cannot say.
func meaning(m restapi.Member) string {
	if m.Rule.Condition == "" {
		return m.Text
	}
	return m.Text + " It must have " + m.Rule.Condition + "."
}

// resultSchema is that of an answer with status 200.
func resultSchema(s *restapi.Service) object {
	name := "SuccessV2"
	if s.Version == restapi.V1 {
		name = "SuccessV1"
	}
	success := ref("schemas", name)
	if len(s.Results) > 0 {
		success = successSchema(s.Version, s.Results)
	}
	if _, refusable := find(s.Answers(), restapi.Refused); !refusable {
		return success
	}
	return object{{"anyOf", []object{success, ref("schemas", failureName(s.Version))}}}
}

func resultExamples(s *restapi.Service) object {
	o := object{{"success", object{{"summary", "Success"}, {"value", successExample(s)}}}}
	for _, r := range s.Refusals {
		o = append(o, property{r.Status, ref("examples", exampleName(r.Status, s.Version))})
	}
	return o
}

func exampleName(status string, v restapi.Version) string {
	return status + "_" + strings.ToUpper(string(v))
}

// examples are those of the refusals.
func examples() object {
	var o object
	for _, v := range []restapi.Version{restapi.V2, restapi.V1} {
		for _, status := range restapi.Statuses() {
			used := slices.ContainsFunc(restapi.Services(), func(s restapi.Service) bool {
				return s.Version == v && slices.ContainsFunc(s.Refusals, func(r restapi.Refusal) bool { return r.Status == status.Name })
			})
			if used {
				o = append(o, property{exampleName(status.Name, v), object{{"summary", status.When}, {"value", refusedExample(v, status.Name)}}})
			}
		}
	}
	return o
}

// successSchema is that of a success with the members of the service.
func successSchema(v restapi.Version, results []restapi.Result) object {
	properties, required := resultProperties(results)
	if v == restapi.V1 {
		return object{
			{"type", "object"},
			{"properties", append(object{
				{"errorCode", object{{"const", 0}}},
				{"errorMessage", object{{"const", "STAT_SUCCESS"}}},
			}, properties...)},
			{"required", append([]string{"errorCode", "errorMessage"}, required...)},
		}
	}
	o := object{{"resultCodes", ref("schemas", "SuccessCodes")}}
	names := []string{"resultCodes"}
	if len(results) > 0 {
		o = append(o, property{"result", object{{"type", "object"}, {"properties", properties}, {"required", required}}})
		names = append(names, "result")
	}
	return object{{"type", "object"}, {"properties", o}, {"required", names}}
}

func resultProperties(results []restapi.Result) (properties object, required []string) {
	for _, m := range results {
		var schema object
		switch m.Kind {
		case restapi.KindObject:
			nested, names := resultProperties(m.Members)
			schema = object{{"type", "object"}, {"description", m.Text}, {"properties", nested}, {"required", names}}
		case restapi.KindInteger:
			schema = object{{"type", "integer"}, {"description", m.Text}}
		case restapi.KindTime:
			schema = object{{"type", "string"}, {"format", "date-time"}, {"description", m.Text}}
		default:
			schema = object{{"type", "string"}, {"description", m.Text}}
		}
		properties = append(properties, property{m.Name, schema})
		if !m.Optional {
			required = append(required, m.Name)
		}
	}
	return properties, required
}

func failureName(v restapi.Version) string {
	if v == restapi.V1 {
		return "FailureV1"
	}
	return "FailureV2"
}

// schemas are those that services share.
func schemas() object {
	var names []string
	for _, s := range restapi.Statuses() {
		if s.Name != "STAT_SUCCESS" {
			names = append(names, s.Name)
		}
	}
	codes, _ := answer(restapi.Success).Example()
	failed := object{{"type", "integer"}, {"description", "Not 0."}, {"not", object{{"const", 0}}}}
	status := object{{"type", "string"}, {"description", "Why; authentication servers may use other names than these."}, {"examples", names}}
	description := property{"errorDescription", object{{"type", "string"}, {"description", "What is wrong with the request, in English, for developers. It names a member and never a value."}}}
	return object{
		{"SuccessCodes", successCodes(codes)},
		{"FailureCodes", object{
			{"type", "object"},
			{"properties", object{
				{"returnCodeEnum", object{{"type", "string"}, {"not", object{{"const", codes.ReturnCodeEnum}}}}},
				{"statusCodeEnum", append(status, property{"not", object{{"const", codes.StatusCodeEnum}}})},
				{"returnCode", failed},
				{"statusCode", object{{"type", "integer"}, {"description", "The number of the status, not 0."}, {"not", object{{"const", 0}}}}},
			}},
			{"required", []string{"returnCodeEnum", "statusCodeEnum", "returnCode", "statusCode"}},
		}},
		{"SuccessV2", successSchema(restapi.V2, nil)},
		{"FailureV2", object{
			{"type", "object"},
			{"properties", object{{"resultCodes", ref("schemas", "FailureCodes")}, description}},
			{"required", []string{"resultCodes"}},
		}},
		{"SuccessV1", successSchema(restapi.V1, nil)},
		{"FailureV1", object{
			{"type", "object"},
			{"properties", object{{"errorCode", failed}, {"errorMessage", append(status, property{"not", object{{"const", codes.StatusCodeEnum}}})}, description}},
			{"required", []string{"errorCode", "errorMessage"}},
		}},
	}
}

func successCodes(codes gateway.ResultCodes) object {
	return object{
		{"type", "object"},
		{"properties", object{
			{"returnCodeEnum", object{{"const", codes.ReturnCodeEnum}}},
			{"statusCodeEnum", object{{"const", codes.StatusCodeEnum}}},
			{"returnCode", object{{"const", codes.ReturnCode}}},
			{"statusCode", object{{"const", codes.StatusCode}}},
		}},
		{"required", []string{"returnCodeEnum", "statusCodeEnum", "returnCode", "statusCode"}},
	}
}

// responseName returns the name of a failure, such as UnauthenticatedV2.
func responseName(a restapi.Answer, v restapi.Version) string {
	var name strings.Builder
	for word := range strings.SplitSeq(string(a.Outcome), "_") {
		name.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return name.String() + strings.ToUpper(string(v))
}

// responses are the failures that services share.
func responses() object {
	var o object
	for _, v := range []restapi.Version{restapi.V2, restapi.V1} {
		for _, a := range restapi.Answers() {
			shared := slices.ContainsFunc(restapi.Services(), func(s restapi.Service) bool {
				return s.Version == v && slices.ContainsFunc(s.Answers(), func(x restapi.Answer) bool { return x.Outcome == a.Outcome })
			})
			if !shared || a.Outcome == restapi.Success || a.Outcome == restapi.Refused {
				continue
			}
			codes, description := a.Example()
			o = append(o, property{responseName(a, v), object{
				{"description", a.When + " " + a.Then},
				{"headers", answerHeaders(a)},
				{"content", content(ref("schemas", failureName(v)), object{{codes.StatusCodeEnum, object{{"value", envelope(v, codes, description, nil)}}}})},
			}})
		}
	}
	return o
}
