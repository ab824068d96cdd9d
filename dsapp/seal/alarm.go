package seal

// Event is what is wrong with a stored record.
type Event string

// The events.
const (
	// EventUnopened means that no key of the Keyring opens the record.
	EventUnopened Event = "record_unopened"
	// EventDamaged means that the record does not have the form that a gateway writes.
	EventDamaged Event = "record_damaged"
)

// Alarm tells an operator that a stored record cannot be used.
type Alarm struct {
	Event Event
	// Registration is the identifier of the registration that the record belongs to, and
	// Request is the kind of request. They are empty if the record belongs to none.
	Registration, Request string
}
