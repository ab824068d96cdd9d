package seal

// Event is what is wrong with a stored value.
type Event string

// The events.
const (
	// EventUnopened is a value that no sealing key opens.
	EventUnopened Event = "record_unopened"
	// EventDamaged is a value that no gateway has written.
	EventDamaged Event = "record_damaged"
)

// Alarm is a stored value that cannot be used, of which an operator has to know.
type Alarm struct {
	Event Event
	// Registration is the identifier of the registration that the value belongs to, and
	// Request the kind of request. Both are empty for a value of neither.
	Registration, Request string
}
