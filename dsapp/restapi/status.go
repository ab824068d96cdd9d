package restapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// Outcome is how a request ended: a small fixed set, fit for a metric label.
type Outcome string

// The outcomes.
const (
	Success          Outcome = "success"
	Refused          Outcome = "refused"
	Invalid          Outcome = "invalid"
	Unauthenticated  Outcome = "unauthenticated"
	Forbidden        Outcome = "forbidden"
	NotFound         Outcome = "not_found"
	MethodNotAllowed Outcome = "method_not_allowed"
	TooLarge         Outcome = "too_large"
	TooSlow          Outcome = "too_slow"
	UnsupportedMedia Outcome = "unsupported_media_type"
	Limited          Outcome = "limited"
	Unavailable      Outcome = "unavailable"
	BadAnswer        Outcome = "bad_answer"
	Timeout          Outcome = "timeout"
	Internal         Outcome = "internal"
	// PassedOn is a request that was given to the next handler.
	PassedOn Outcome = "passed_on"
	// TooEarly is a request in the early data of a TLS handshake.
	TooEarly Outcome = "too_early"
)

// situation is what a client is told about an outcome.
type situation struct {
	status int
	codes  gateway.ResultCodes
	// description is the errorDescription unless a better one is known.
	description string
}

func failure(statusCodeEnum string, statusCode int) gateway.ResultCodes {
	return gateway.ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: statusCodeEnum, ReturnCode: -1, StatusCode: statusCode}
}

// situationOf is the one place where outcomes become statuses and codes. The
// codes of a refusal are the refusal's own. What a client is told about anything
// but success is this project's choice, with the numbers of the vendor's status
// codes: the vendor's documentation does not say.
func situationOf(o Outcome) situation {
	switch o {
	case Success:
		return situation{status: http.StatusOK, codes: gateway.ResultCodes{ReturnCodeEnum: "RET_SUCCESS", StatusCodeEnum: "STAT_SUCCESS"}}
	case Refused:
		return situation{status: http.StatusOK}
	case Invalid:
		return situation{http.StatusBadRequest, failure("STAT_INVPARAM", -2), ""}
	case Unauthenticated:
		return situation{http.StatusUnauthorized, failure("STAT_INVCREDENTIALS", 1000), ""}
	case Forbidden:
		return situation{http.StatusForbidden, failure("STAT_PERMISSION", 1005), ""}
	case NotFound:
		return situation{http.StatusNotFound, failure("STAT_NOT_FOUND", -13), "unknown service"}
	case MethodNotAllowed:
		return situation{http.StatusMethodNotAllowed, failure("STAT_INVPARAM", -2), "method must be POST"}
	case TooLarge:
		return situation{http.StatusRequestEntityTooLarge, failure("STAT_INVPARAM", -2), "body is too large"}
	case TooSlow:
		return situation{http.StatusRequestTimeout, failure("STAT_INVPARAM", -2), "body did not arrive in time"}
	case UnsupportedMedia:
		return situation{http.StatusUnsupportedMediaType, failure("STAT_INVPARAM", -2), "content type must be application/json in UTF-8 without a content encoding"}
	case TooEarly:
		return situation{http.StatusTooEarly, failure("STAT_INVPARAM", -2), "not accepted before the TLS handshake is complete"}
	case Limited:
		return situation{http.StatusTooManyRequests, failure("STAT_ERROR", -1), "too many requests"}
	case Unavailable:
		return situation{http.StatusServiceUnavailable, failure("STAT_COMMS", -10), ""}
	case BadAnswer:
		return situation{http.StatusBadGateway, failure("STAT_COMMS", -10), ""}
	case Timeout:
		return situation{http.StatusGatewayTimeout, failure("STAT_COMMS", -10), ""}
	default:
		return situation{http.StatusInternalServerError, failure("STAT_ERROR", -1), ""}
	}
}

// answer is what a client gets.
type answer struct {
	outcome Outcome
	situation
	result     []field
	retryAfter time.Duration
	limit      Limit
	// reason is the status to be reported, if the client is told another one.
	reason string
}

func answerTo(o Outcome) answer { return answer{outcome: o, situation: situationOf(o)} }

// Limit names what a request was one too many for.
type Limit string

// The limits.
const (
	LimitFailedKeys       Limit = "failed_keys"
	LimitExchanges        Limit = "exchanges"
	LimitCalls            Limit = "calls"
	LimitRegistrations    Limit = "registrations"
	LimitRequestsInFlight Limit = "requests_in_flight"
	LimitCallsInFlight    Limit = "calls_in_flight"
	// LimitBusy is that of the exchanges that are computed at once.
	LimitBusy Limit = "busy"
)

// answerLimited answers a request that came too early.
func answerLimited(l Limit, retryAfter time.Duration) answer {
	a := answerTo(Limited)
	a.limit = l
	// The client is always told when to come back.
	a.retryAfter = max(retryAfter, time.Second)
	return a
}

// answerError answers a request that failed. The service gives members their names.
func answerError(s *service, err error) answer {
	if refusal, ok := errors.AsType[*gateway.Refusal](err); ok {
		a := answerTo(Refused)
		a.codes, a.reason = refusal.Codes, refusal.Status()
		return a
	}
	if description, ok := descriptionOf(s, err); ok {
		a := answerTo(Invalid)
		a.description = description
		return a
	}
	failure, ok := errors.AsType[*gateway.Failure](err)
	if !ok {
		return answerTo(Internal)
	}
	var a answer
	switch failure.Kind {
	case gateway.Unavailable:
		a = answerTo(Unavailable)
	case gateway.BadAnswer:
		a = answerTo(BadAnswer)
	case gateway.Timeout:
		a = answerTo(Timeout)
	case gateway.Busy:
		return answerLimited(LimitBusy, failure.RetryAfter)
	default:
		a = answerTo(Internal)
	}
	a.retryAfter = failure.RetryAfter
	if a.outcome == Unavailable {
		a.retryAfter = max(a.retryAfter, time.Second)
	}
	return a
}

// descriptionOf tells what is wrong with a request, and false if err is not
// about that. It never repeats what came with the request.
func descriptionOf(s *service, err error) (string, bool) {
	if invalid, ok := errors.AsType[*gateway.InvalidError](err); ok {
		for _, m := range s.members {
			if m.name == string(invalid.Member) {
				return m.name + " " + invalid.Problem, true
			}
		}
		return "request " + invalid.Problem, true
	}
	if duplicate, ok := errors.AsType[*duplicateError](err); ok {
		for _, m := range s.members {
			if m.name == duplicate.name {
				return m.name + " occurs twice", true
			}
		}
		return duplicate.Error(), true
	}
	if invalid, ok := errors.AsType[*requestError](err); ok {
		return invalid.Error(), true
	}
	return "", false
}

// seconds is a time as a Retry-After field value, rounded up.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
