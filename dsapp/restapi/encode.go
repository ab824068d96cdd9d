package restapi

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// field is one member of an answer: a string, an int64 or nested fields.
type field struct {
	name  string
	value any
}

// Version is a version of the REST interface. It determines the structure of answers.
type Version string

// The versions.
const (
	V1 Version = "v1"
	V2 Version = "v2"
)

// encode returns the body of an answer. In version 2 it has the members resultCodes and,
// if there are fields, result. In version 1 the fields are members of the answer itself,
// beside the return code as errorCode and the name of the status as errorMessage. In
// both, errorDescription is a member of the outermost object.
func encode(v Version, codes gateway.ResultCodes, result []field, description string) []byte {
	var fields []field
	switch v {
	case V1:
		fields = append([]field{
			{"errorCode", int64(codes.ReturnCode)},
			{"errorMessage", codes.StatusCodeEnum},
		}, result...)
	default:
		fields = []field{{"resultCodes", []field{
			{"returnCodeEnum", codes.ReturnCodeEnum},
			{"statusCodeEnum", codes.StatusCodeEnum},
			{"returnCode", int64(codes.ReturnCode)},
			{"statusCode", int64(codes.StatusCode)},
		}}}
		if len(result) > 0 {
			fields = append(fields, field{"result", result})
		}
	}
	if description != "" {
		fields = append(fields, field{"errorDescription", description})
	}
	return appendObject(make([]byte, 0, 512), fields)
}

func appendObject(dst []byte, fields []field) []byte {
	dst = append(dst, '{')
	for i, f := range fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, f.name), ':')
		switch value := f.value.(type) {
		case string:
			dst = appendString(dst, value)
		case int64:
			dst = strconv.AppendInt(dst, value, 10)
		case []field:
			dst = appendObject(dst, value)
		}
	}
	return append(dst, '}')
}

func appendString(dst []byte, s string) []byte {
	if plain(s) {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	// Encoding a string never fails. The encoder appends a newline.
	_ = e.Encode(s) //nolint:errchkjson // see above
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// plain reports whether s is printable ASCII that needs no escapes in JSON.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' {
			return false
		}
	}
	return true
}
