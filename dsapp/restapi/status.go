package restapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// Outcome classifies the result of a request. It is one of a fixed set, so that it can be
// a metric label.
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
	// PassedOn is a request that the next handler has handled.
	PassedOn Outcome = "passed_on"
	// UnderWay is a request whose idempotency key names a request that is under way.
	UnderWay Outcome = "under_way"
	// KeyReused is a request whose idempotency key named a request with another body.
	KeyReused Outcome = "key_reused"
	// TooEarly is a request in the early data of a TLS handshake.
	TooEarly Outcome = "too_early"
	// Preflight is the question of a browser whether a page may call a service. It is no
	// call of the service.
	Preflight Outcome = "preflight"
)

// response is the part of an answer that follows from its outcome.
type response struct {
	status      int // of HTTP
	codes       gateway.ResultCodes
	description string // errorDescription
}

func failure(statusCodeEnum string, statusCode int) gateway.ResultCodes {
	return gateway.ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: statusCodeEnum, ReturnCode: -1, StatusCode: statusCode}
}

// responseFor returns the response for an outcome. The result codes of a refusal are
// those of the gateway.Refusal. The vendor documents only the answer to a success; the
// others are chosen by this project, with the vendor's numbers of the status codes.
func responseFor(o Outcome) response {
	switch o {
	case Success:
		return response{status: http.StatusOK, codes: gateway.ResultCodes{ReturnCodeEnum: "RET_SUCCESS", StatusCodeEnum: "STAT_SUCCESS"}}
	case Refused:
		return response{status: http.StatusOK}
	case Invalid:
		return response{http.StatusBadRequest, failure("STAT_INVPARAM", -2), ""}
	case Unauthenticated:
		return response{http.StatusUnauthorized, failure("STAT_INVCREDENTIALS", 1000), ""}
	case Forbidden:
		return response{http.StatusForbidden, failure("STAT_PERMISSION", 1005), ""}
	case NotFound:
		return response{http.StatusNotFound, failure("STAT_NOT_FOUND", -13), "unknown service"}
	case MethodNotAllowed:
		return response{http.StatusMethodNotAllowed, failure("STAT_INVPARAM", -2), "method must be POST"}
	case TooLarge:
		return response{http.StatusRequestEntityTooLarge, failure("STAT_INVPARAM", -2), "body is too large"}
	case TooSlow:
		return response{http.StatusRequestTimeout, failure("STAT_INVPARAM", -2), "body did not arrive in time"}
	case UnsupportedMedia:
		return response{http.StatusUnsupportedMediaType, failure("STAT_INVPARAM", -2), "content type must be application/json in UTF-8 without a content encoding"}
	case TooEarly:
		return response{http.StatusTooEarly, failure("STAT_INVPARAM", -2), "not accepted before the TLS handshake is complete"}
	case UnderWay:
		return response{http.StatusConflict, failure("STAT_ERROR", -1), "the first request with this " + KeyField + " is under way"}
	case KeyReused:
		return response{http.StatusUnprocessableEntity, failure("STAT_INVPARAM", -2), KeyField + " was used with another body"}
	case Limited:
		return response{http.StatusTooManyRequests, failure("STAT_ERROR", -1), "too many requests"}
	case Unavailable:
		return response{http.StatusServiceUnavailable, failure("STAT_COMMS", -10), ""}
	case BadAnswer:
		return response{http.StatusBadGateway, failure("STAT_COMMS", -10), ""}
	case Timeout:
		return response{http.StatusGatewayTimeout, failure("STAT_COMMS", -10), ""}
	default:
		return response{http.StatusInternalServerError, failure("STAT_ERROR", -1), ""}
	}
}

// answer is the answer to one request.
type answer struct {
	outcome Outcome
	response
	result     []field
	retryAfter time.Duration
	limit      Limit
	// observedStatus is the status for the Observation, if it is not that of codes.
	observedStatus string
}

func newAnswer(o Outcome) answer { return answer{outcome: o, response: responseFor(o)} }

// Limit names a limit of Limits.
type Limit string

// The limits.
const (
	LimitFailedKeys       Limit = "failed_keys"
	LimitExchanges        Limit = "exchanges"
	LimitCalls            Limit = "calls"
	LimitRegistrations    Limit = "registrations"
	LimitRequestsInFlight Limit = "requests_in_flight"
	LimitCallsInFlight    Limit = "calls_in_flight"
	// LimitBusy is the limit of activation exchanges that are computed concurrently.
	LimitBusy Limit = "busy"
)

// limitedAnswer returns the answer to a request that exceeds a limit.
func limitedAnswer(l Limit, retryAfter time.Duration) answer {
	a := newAnswer(Limited)
	a.limit = l
	// A Retry-After of 0 would be left out.
	a.retryAfter = max(retryAfter, time.Second)
	return a
}

// errorAnswer returns the answer to a request of a service that failed with err.
func errorAnswer(s *Service, err error) answer {
	if refusal, ok := errors.AsType[*gateway.Refusal](err); ok {
		a := newAnswer(Refused)
		a.codes, a.observedStatus = refusal.Codes, refusal.Status()
		return a
	}
	if description, ok := descriptionOf(s, err); ok {
		a := newAnswer(Invalid)
		a.description = description
		return a
	}
	failure, ok := errors.AsType[*gateway.Failure](err)
	if !ok {
		return newAnswer(Internal)
	}
	var a answer
	switch failure.Kind {
	case gateway.Unavailable:
		a = newAnswer(Unavailable)
	case gateway.BadAnswer:
		a = newAnswer(BadAnswer)
	case gateway.Timeout:
		a = newAnswer(Timeout)
	case gateway.UnderWay:
		a = newAnswer(UnderWay)
	case gateway.KeyReused:
		a = newAnswer(KeyReused)
	case gateway.Busy:
		return limitedAnswer(LimitBusy, failure.RetryAfter)
	default:
		a = newAnswer(Internal)
	}
	a.retryAfter = failure.RetryAfter
	if a.outcome == Unavailable {
		a.retryAfter = max(a.retryAfter, time.Second)
	}
	return a
}

// descriptionOf returns the errorDescription for an error about the request, and false
// for other errors. It contains nothing from the request except names of members that
// the service has.
func descriptionOf(s *Service, err error) (string, bool) {
	if invalid, ok := errors.AsType[*gateway.InvalidError](err); ok {
		for _, m := range s.Members {
			if m.Name == string(invalid.Member) {
				return m.Name + " " + invalid.Problem, true
			}
		}
		return "request " + invalid.Problem, true
	}
	if duplicate, ok := errors.AsType[*duplicateError](err); ok {
		for _, m := range s.Members {
			if m.Name == duplicate.name {
				return m.Name + " occurs twice", true
			}
		}
		return duplicate.Error(), true
	}
	if invalid, ok := errors.AsType[*requestError](err); ok {
		return invalid.Error(), true
	}
	return "", false
}

// seconds returns a time as a Retry-After field value, rounded up.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
