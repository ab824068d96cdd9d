// Package soap writes commands of the authentication server as SOAP requests and reads its
// answers.
//
// Every command is defined once, in the table in commands.go: a Row with its name and
// properties, a request struct and an answer struct, whose members are bound there to the
// SOAP names. To add a command, add its structs to structs.go and its row to the table.
//
// Commands, attributes and types follow the vendor's documentation. The vendor's WSDL and
// the names of some attributes are not public. The names of the attributes that carry
// activation messages, and of those in the answer to MDL_ACTIVATE, are this project's
// assumptions; Attributes configures those that matter. Which command may be sent again
// after which failure is this project's decision, too.
package soap

import "github.com/dsapp-gateway/dsapp-gateway/dsapp/form"

// Dialect is what varies between installations of the authentication server.
type Dialect struct {
	Version        Version
	ComponentTypes ComponentTypes
	Attributes     Attributes
}

// ComponentTypes are the names under which the authentication servers know this gateway as
// a client, one for each family of services, up to 60 characters each. The component type
// and the client's address select the server's policy for a command.
type ComponentTypes struct {
	Provisioning   string
	Authentication string
	Signature      string
	Notification   string
}

// Attributes are the names of the attributes whose names the vendor does not publish.
type Attributes struct {
	// ActivationMessage carries Activation Message 1. Default PROVFLD_ACTIVATION_MESSAGE.
	ActivationMessage string
	// InstanceActivationMessage carries Activation Message 2. Default PROVFLD_INSTANCE_ACTIVATION_MESSAGE.
	InstanceActivationMessage string
	// EventReactivationCounter carries the event reactivation counter of a standard
	// licence. Default PROVFLD_EVENT_REACTIVATION_COUNTER.
	EventReactivationCounter string
	// DeviceDescription carries the description of a new device. If empty, the
	// description is not sent.
	DeviceDescription string
}

func activationMessageName(a *Attributes) string         { return a.ActivationMessage }
func instanceActivationMessageName(a *Attributes) string { return a.InstanceActivationMessage }
func eventReactivationCounterName(a *Attributes) string  { return a.EventReactivationCounter }
func deviceDescriptionName(a *Attributes) string         { return a.DeviceDescription }

// Retry says after which failures a command may be sent to another instance. As long as no
// byte of it was sent, every command may.
type Retry uint8

const (
	// RetryNotSent forbids it after every other failure. It is for commands that count
	// attempts, use up sequence numbers or verify one-time values.
	RetryNotSent Retry = iota
	// RetryFault also allows it after an answer in which the server reports that it is
	// broken. It is for commands that did nothing then, but that may have been carried
	// out if no answer came.
	RetryFault
	// RetryOnce also allows it, once, if no answer came. It is for commands that do no
	// harm if they are carried out twice.
	RetryOnce
)

// scenario is a family of operations of the authentication server. The word is the
// vendor's.
type scenario struct {
	// prefix and namespace are those of the operation elements.
	prefix, namespace string
	component         func(*ComponentTypes) string
}

const types = "http://www.vasco.com/IdentikeyServer/IdentikeyTypes/"

var (
	provisioningScenario   = scenario{"prov", types + "Provisioning", func(t *ComponentTypes) string { return t.Provisioning }}
	notificationScenario   = scenario{"prov", types + "Provisioning", func(t *ComponentTypes) string { return t.Notification }}
	authenticationScenario = scenario{"aut", types + "Authentication", func(t *ComponentTypes) string { return t.Authentication }}
	signatureScenario      = scenario{"sig", types + "Signature", func(t *ComponentTypes) string { return t.Signature }}
)

// Row is a row of the table of the commands. There are two families of operations. In the
// attribute list family, a request is a list of values with a type, each named by an
// attribute ID. In the typed family, every value is an element of its own.
type Row struct {
	operation string
	scenario  scenario
	// cmd is the subcommand, if the operation has subcommands.
	cmd string
	// attributeSet is the name of the element that contains the attributes. It is empty
	// in the typed family.
	attributeSet string
	// prefix is what the names of all attributes begin with.
	prefix string
	// fields are the values of a request, in the order in which they are sent.
	fields []field
	// dataFields adds a data field list with one meaningless entry, without which the
	// server refuses the command.
	dataFields bool
	outputs    []output
	// gather fills in the outputs whose names are not fixed. It is nil if there are none.
	gather func(items []item, answer any) error
	// refusalOutput is the name of an output whose presence turns a success into a
	// refusal. It is empty if there is none. define begins it with the prefix.
	refusalOutput string
	// Retry says when another instance may get the command.
	Retry Retry
	// begins says that requests of this command begin something new on the instance. See
	// Call.Begins.
	begins bool
	// MayAwaitUser says that the server may wait for a user's approval before it answers
	// some requests of this command. See Call.AwaitsUser.
	MayAwaitUser bool
	// approved reports whether a request already contains the user's approval.
	approved func(request any) bool
	// AskNextOn are the statuses that only say that the instance does not have what the
	// command is about, so that another instance may have it.
	AskNextOn []string
}

// String returns the name of the command in errors and logs: the subcommand or, if there is
// none, the operation.
func (r *Row) String() string {
	if r.cmd != "" {
		return r.cmd
	}
	return r.operation
}

func (r *Row) typed() bool { return r.attributeSet == "" }

// inputName returns the name of a field, or the empty string if the field is not to be sent.
func (f *field) inputName(a *Attributes) string {
	if f.configuredName != nil {
		return f.configuredName(a)
	}
	return f.name
}

// outputName returns the name of an output.
func (o *output) outputName(a *Attributes) string {
	if o.configuredName != nil {
		return o.configuredName(a)
	}
	return o.name
}

// field is one value of a request.
type field struct {
	// name is the name of the attribute, which define begins with the prefix of the row,
	// or the path of the element below the operation element.
	name string
	// configuredName returns the name of an attribute that Attributes configures; nil for
	// others. The field is not sent if the name is empty.
	configuredName func(*Attributes) string
	// xsiType is sent in the attribute list family only. The default is xsdString.
	xsiType string
	// constant is sent whatever the request is.
	constant string
	optional bool
	// valueIn returns the value in a request. A field with neither valueIn nor constant
	// is the component type.
	valueIn func(request any) string
}

// The xsi:type of a value. The server answers a wrong one with a Fault.
const (
	xsdString      = "xsd:string"
	xsdUnsignedInt = "xsd:unsignedInt"
)

// output is one value of an answer.
type output struct {
	// name is the name of the attribute, which define begins with the prefix of the row,
	// or the path of the element below result. Case does not matter in a path.
	name string
	// configuredName returns the name of an attribute that Attributes configures; nil for
	// others.
	configuredName func(*Attributes) string
	required       bool
	characters     characters
	// longest is the greatest length in characters. The default is maxText.
	longest int
	// placeIn returns the place of the value in an answer.
	placeIn func(answer any) *string
}

// characters says which characters an output may have.
type characters uint8

const (
	anyCharacters characters = iota
	hexDigits
	printable // printable ASCII
)

// Greatest lengths of outputs, in characters. Where the server's own limit is not public,
// they are generous.
const (
	maxText    = 1024     // the server's own names have up to 255
	maxRelayed = 64 << 10 // an encrypted activation message has 8468
)

// Greatest lengths of outputs that have a type in package form.
var (
	maxActivationMessage         = form.ActivationMessage("").Rule().Max
	maxInstanceActivationMessage = form.InstanceActivationMessage("").Rule().Max // the server's own field is said to have 109
	maxActivationCode            = form.ActivationCode("").Rule().Max
	maxEventCounter              = form.EventCounter("").Rule().Max
	maxRequestMessage            = form.RequestMessage("").Rule().Max // messages of some 120 digits have been seen
)

// Command is a row of the table with the types of its request, Q, and its answer, A.
type Command[Q, A any] struct{ *Row }

// Call returns the command with a request. Decode stores the values of the answer in *answer.
func (c Command[Q, A]) Call(request *Q, answer *A) Call { return Call{c.Row, request, answer} }

// Call is a command with a request and a place for the answer: pointers to the structs of
// the Command.
type Call struct {
	*Row
	Request any
	Answer  any
}

// AwaitsUser reports whether the server may wait for a user's approval before it answers
// this request.
func (c Call) AwaitsUser() bool { return c.MayAwaitUser && !c.approved(c.Request) }

// Begins reports whether this request begins something new on the instance, a registration
// or a login, rather than being about something that the instance holds.
func (c Call) Begins() bool { return c.begins && (c.approved == nil || !c.approved(c.Request)) }

// boundField is a field and its value in a request of type Q.
type boundField[Q any] struct {
	field
	value func(*Q) string
}

// boundOutput is an output and its place in an answer of type A.
type boundOutput[A any] struct {
	output
	place func(*A) *string
}

// define adds fields and outputs to a row.
func define[Q, A any](r Row, request []boundField[Q], answer []boundOutput[A]) Command[Q, A] {
	for _, b := range request {
		if b.value != nil {
			b.valueIn = func(request any) string { return b.value(request.(*Q)) }
		}
		b.name = r.prefix + b.name
		r.fields = append(r.fields, b.field)
	}
	for _, b := range answer {
		b.placeIn = func(answer any) *string { return b.place(answer.(*A)) }
		b.name = r.prefix + b.name
		r.outputs = append(r.outputs, b.output)
	}
	if r.refusalOutput != "" {
		r.refusalOutput = r.prefix + r.refusalOutput
	}
	return Command[Q, A]{&r}
}
