package restapi

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// preflightSeconds is how long a browser may rely on the answer to a preflight.
const preflightSeconds = "600"

// Origins are the origins of the web pages whose scripts may call the services for
// front-end keys. The zero value has none.
type Origins struct {
	known map[string]struct{}
}

// ParseOrigins returns the origins of a list, each written exactly as browsers send it in
// the field Origin: scheme and host in lower case, and a port that is not the default of the
// scheme. Any scheme is accepted. The error is an *option.Error about an element of the
// option `origins`.
func ParseOrigins(list []string) (Origins, error) {
	o := Origins{known: make(map[string]struct{}, len(list))}
	for i, text := range list {
		problem := originProblem(text)
		if _, twice := o.known[text]; twice {
			problem = "is the same as an earlier one"
		}
		if problem != "" {
			return Origins{}, option.Errorf(fmt.Sprintf("origins[%d]", i), "%s", problem)
		}
		o.known[text] = struct{}{}
	}
	return o, nil
}

// has reports whether the value of a field Origin is one of the origins.
func (o Origins) has(value string) bool {
	_, ok := o.known[value]
	return ok
}

// originProblem returns what is wrong with a text that is to be an origin, or an empty
// string. A text that no browser sends is wrong, because it would have no effect.
func originProblem(text string) string {
	switch text {
	case "*":
		return "must not be *: list the origins, otherwise the page of any site could call the services from the browsers of its visitors"
	case "null":
		return "must not be null: local files and sandboxed frames of all sites have this origin"
	}
	scheme, rest, ok := strings.Cut(text, "://")
	switch {
	case !ok:
		return "must be an origin such as https://app.example.com or capacitor://localhost"
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "must have neither spaces nor characters beyond ASCII: write an international name as browsers send it, beginning with xn--"
	case text != strings.ToLower(text):
		return "must be in lower case, as browsers send it"
	case !validScheme(scheme):
		return "must begin with a scheme of letters, digits, '+', '-' and '.'"
	case strings.ContainsAny(rest, `/\?#`):
		return "must end after the host and the port: it must have no path, not even a slash"
	case strings.Contains(rest, "@"):
		return "must have no user name"
	}
	host, port := rest, ""
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, ']') {
		host, port = rest[:i], rest[i+1:]
		if number, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(number, 10) != port || number == 0 {
			return "must have a port from 1 to 65535 or none"
		}
	}
	if scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return "must not have the default port of its scheme, which browsers leave out"
	}
	if !validHost(host) {
		return "must have a host name, an IPv4 address or an IPv6 address in brackets, in its usual form"
	}
	return ""
}

func validScheme(s string) bool {
	return s != "" && s[0] >= 'a' && s[0] <= 'z' && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '+' || r == '-' || r == '.')
	})
}

// validHost reports whether browsers write a host like this.
func validHost(host string) bool {
	if v6, ok := strings.CutPrefix(host, "["); ok {
		v6, ok = strings.CutSuffix(v6, "]")
		address, err := netip.ParseAddr(v6)
		return ok && err == nil && address.Is6() && !address.Is4In6() && address.Zone() == "" && address.String() == v6
	}
	name := strings.TrimSuffix(host, ".")
	if last := name[strings.LastIndexByte(name, '.')+1:]; last != "" && last[0] >= '0' && last[0] <= '9' {
		address, err := netip.ParseAddr(host)
		return err == nil && address.Is4()
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || strings.ContainsFunc(label, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}) {
			return false
		}
	}
	return true
}

// answerPreflight adds the fields of CORS (https://fetch.spec.whatwg.org/#http-cors-protocol)
// to the answer of a service for front-end keys, whatever the answer will be. If the request
// is a preflight, which a browser sends without a key before a script may call the service,
// answerPreflight answers it and returns true. A preflight counts towards no limit.
//
// Requests of other origins are served as always, but without these fields, so that a
// browser keeps the answer from the script.
func (x *request) answerPreflight() bool {
	if len(x.config.Origins.known) == 0 || x.service == nil || !slices.Contains(x.service.Classes, apikey.FrontEnd) {
		return false
	}
	header, origins := x.w.Header(), x.r.Header.Values("Origin")
	header.Add("Vary", "Origin")
	known := len(origins) == 1 && x.config.Origins.has(origins[0])
	if known {
		header.Set("Access-Control-Allow-Origin", origins[0])
	}
	if x.r.Method != http.MethodOptions || len(origins) == 0 || len(x.r.Header.Values("Access-Control-Request-Method")) == 0 {
		if known {
			header.Set("Access-Control-Expose-Headers", "Retry-After, X-Request-Id")
		}
		return false
	}
	if known {
		header.Set("Access-Control-Allow-Methods", http.MethodPost)
		header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		header.Set("Access-Control-Max-Age", preflightSeconds)
	}
	x.setBodyDeadline()
	x.w.WriteHeader(http.StatusNoContent)
	x.observe(answer{outcome: Preflight, response: response{status: http.StatusNoContent}})
	return true
}
