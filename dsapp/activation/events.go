package activation

import (
	"context"
	"errors"
	"time"
)

// Step is one of the two calls of an exchange.
type Step string

// The steps.
const (
	// StepEphemeralKey is the first call, Service.Begin.
	StepEphemeralKey Step = "ephemeral_key"
	// StepActivationData is the second call, Service.Prove.
	StepActivationData Step = "activation_data"
)

// StepOutcome is what came of a call of an exchange. It is one of a fixed set, so that it can
// be a metric label.
type StepOutcome string

// The outcomes.
const (
	// StepAnswered is a first call that was answered. Whether its identifier is registered
	// makes no difference.
	StepAnswered StepOutcome = "answered"
	// StepProven is a second call with right evidence.
	StepProven StepOutcome = "proven"
	// StepRefused is a second call that was refused for any reason.
	StepRefused StepOutcome = "refused"
	// StepBurned is a refused second call that used up the last attempt of a registration.
	StepBurned StepOutcome = "burned"
	// StepInvalid is a call with a value that the profile does not accept.
	StepInvalid StepOutcome = "invalid"
	// StepBusy is a call that found too many others waiting.
	StepBusy StepOutcome = "busy"
	// StepAbandoned is a call whose caller left before its end.
	StepAbandoned StepOutcome = "abandoned"
	// StepUnavailable is a call that could not use the store or a stored value.
	StepUnavailable StepOutcome = "unavailable"
	// StepFailed is a call that failed for another reason, which the log has.
	StepFailed StepOutcome = "failed"
)

// StepEvent is one call of an exchange.
type StepEvent struct {
	Step    Step
	Outcome StepOutcome
	// Profile is the name of the caller's profile.
	Profile  string
	Start    time.Time
	Duration time.Duration
}

// observeStep reports a step that began at start and ended with err. A step without an error
// has the outcome success.
func (s *Service) observeStep(ctx context.Context, p Profile, step Step, start time.Time, success StepOutcome, err error) {
	s.observe(ctx, StepEvent{Step: step, Outcome: stepOutcome(ctx, success, err), Profile: p.Name(), Start: start, Duration: time.Since(start)})
}

func stepOutcome(ctx context.Context, success StepOutcome, err error) StepOutcome {
	if err == nil {
		return success
	}
	if _, ok := errors.AsType[*BurnedError](err); ok {
		return StepBurned
	}
	if _, ok := errors.AsType[*InvalidError](err); ok {
		return StepInvalid
	}
	switch {
	case errors.Is(err, ErrRefused):
		return StepRefused
	case errors.Is(err, ErrBusy):
		return StepBusy
	case ctx.Err() != nil:
		return StepAbandoned
	case errors.Is(err, ErrUnavailable):
		return StepUnavailable
	}
	return StepFailed
}

// Load returns how many calls of exchanges and registrations are being computed, and how many
// calls of exchanges have been admitted and are not.
func (s *Service) Load() (computing, waiting int) { return s.gate.load() }
