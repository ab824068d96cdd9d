package restapi

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// field is one member of an answer.
type field struct {
	name string
	kind Kind
	content
}

// content is the value of a field: fields for KindObject, a number for KindInteger, else a
// text.
type content struct {
	text   string
	number int64
	fields []field
}

func textField(name, text string) field { return field{name, KindString, content{text: text}} }

func numberField(name string, number int) field {
	return field{name, KindInteger, content{number: int64(number)}}
}

func objectField(name string, fields []field) field {
	return field{name, KindObject, content{fields: fields}}
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
	dst := append(make([]byte, 0, 512), '{')
	switch v {
	case V1:
		dst = appendFields(dst, numberField("errorCode", codes.ReturnCode), textField("errorMessage", codes.StatusCodeEnum))
		dst = appendFields(dst, result...)
	default:
		dst = append(dst, `"resultCodes":{`...)
		dst = appendFields(
			dst,
			textField("returnCodeEnum", codes.ReturnCodeEnum),
			textField("statusCodeEnum", codes.StatusCodeEnum),
			numberField("returnCode", codes.ReturnCode),
			numberField("statusCode", codes.StatusCode),
		)
		dst = append(dst, '}')
		if len(result) > 0 {
			dst = appendFields(dst, objectField("result", result))
		}
	}
	if description != "" {
		dst = appendFields(dst, textField("errorDescription", description))
	}
	return append(dst, '}')
}

// appendFields appends fields to an object that has begun.
func appendFields(dst []byte, fields ...field) []byte {
	for i := range fields {
		f := &fields[i]
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, f.name), ':')
		switch f.kind {
		case KindInteger:
			dst = strconv.AppendInt(dst, f.number, 10)
		case KindObject:
			dst = append(appendFields(append(dst, '{'), f.fields...), '}')
		default:
			dst = appendString(dst, f.text)
		}
	}
	return dst
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
	return form.IsPrintable(s) && strings.IndexByte(s, '"') < 0 && strings.IndexByte(s, '\\') < 0
}
