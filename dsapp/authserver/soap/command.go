// Package soap is what the authentication servers are told and answer: the
// commands with their values and answers as structs, and their form in XML. A
// value is bound to its SOAP name in one place, the table of the commands.
//
// The commands, their attributes and types are those of the vendor's
// documentation. Its WSDL and some names of attributes are not public: those of
// the activation messages and of what MDL_ACTIVATE returns are this project's
// choice, and the Attributes can be configured. So is which command may be sent
// again after which failure.
package soap

import "github.com/dsapp-gateway/dsapp-gateway/dsapp/form"

// Dialect is how the servers of an installation are spoken to.
type Dialect struct {
	Version        Version
	ComponentTypes ComponentTypes
	Attributes     Attributes
}

// ComponentTypes are the names under which the authentication servers know this
// client, up to 60 characters each. With the client's address they select the
// policy for a command.
type ComponentTypes struct {
	Provisioning   string
	Authentication string
	Signature      string
	Notification   string
}

// Attributes are the names of attributes that are not public.
type Attributes struct {
	// ActivationMessage carries Activation Message 1. Default PROVFLD_ACTIVATION_MESSAGE.
	ActivationMessage string
	// InstanceActivationMessage carries Activation Message 2. Default PROVFLD_INSTANCE_ACTIVATION_MESSAGE.
	InstanceActivationMessage string
	// EventReactivationCounter of a standard licence. Default PROVFLD_EVENT_REACTIVATION_COUNTER.
	EventReactivationCounter string
	// DeviceDescription carries the description of a new device. If empty, the
	// description is not sent.
	DeviceDescription string
}

func activationMessageName(a *Attributes) string         { return a.ActivationMessage }
func instanceActivationMessageName(a *Attributes) string { return a.InstanceActivationMessage }
func eventReactivationCounterName(a *Attributes) string  { return a.EventReactivationCounter }
func deviceDescriptionName(a *Attributes) string         { return a.DeviceDescription }

// Retry says after which failures another instance may get a command. Every
// command may go to another instance as long as no byte of it was sent.
type Retry uint8

const (
	// RetryNotSent is for commands that count attempts, burn sequence numbers or
	// verify one-time values.
	RetryNotSent Retry = iota
	// RetryFault is for commands that did nothing if the server reports that it
	// is broken, but that may have been carried out if no answer came.
	RetryFault
	// RetryOnce is for commands that can be carried out twice.
	RetryOnce
)

// scenario is a family of operations of the authentication server.
type scenario struct {
	// prefix and namespace of the operation elements.
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

// Row is a row of the table of the commands. In the attribute list family a
// request is a list of typed values named by attributes; in the typed family every
// value is an element of its own.
type Row struct {
	operation string
	scenario  scenario
	// cmd is the subcommand, if the operation has any.
	cmd string
	// set is the element that holds the attributes; empty in the typed family.
	set string
	// prefix of the names of attributes.
	prefix string
	// fields in the order in which they are sent.
	fields []field
	// dataFields adds a data field list with one meaningless entry: the server
	// refuses the command without it.
	dataFields bool
	outputs    []output
	// gather fills in the outputs whose names are not fixed; nil if there are none.
	gather func(items []item, answer any) error
	// denial is the name of an output with which a success is a refusal after all.
	denial string
	Retry  Retry
	// Waits says that the server may wait for a person before it answers.
	Waits bool
	// answered reports whether a request brings the person's answer along.
	answered func(request any) bool
	// Elsewhere are the statuses that say no more than that the instance does not
	// have what the command is about: another one may have it.
	Elsewhere []string
}

// String is what errors and logs call the command.
func (r *Row) String() string {
	if r.cmd != "" {
		return r.cmd
	}
	return r.operation
}

func (r *Row) typed() bool { return r.set == "" }

// inputName is the full name of a field; empty if it is not to be sent.
func (r *Row) inputName(f *field, a *Attributes) string {
	if f.id != nil {
		return f.id(a)
	}
	return r.prefix + f.name
}

// outputName is the full name of an output.
func (r *Row) outputName(o *output, a *Attributes) string {
	if o.id != nil {
		return o.id(a)
	}
	return r.prefix + o.name
}

// field is one value that a command sends.
type field struct {
	// name of the attribute without its prefix, or path of the element below the
	// operation element.
	name string
	// id gives the attribute's configured name, for attributes whose names are
	// not public. The field is left out if that is empty.
	id func(*Attributes) string
	// kind is the xsi:type, in the attribute list family only; "" is xsdString.
	kind string
	// fixed is sent whatever the request is.
	fixed    string
	optional bool
	// of gives the value in a request. Without it and fixed it is the component type.
	of func(request any) string
}

// The xsi:type of a value. The server answers a wrong one with a Fault.
const (
	xsdString      = "xsd:string"
	xsdUnsignedInt = "xsd:unsignedInt"
)

// output is one value that a command's answer can hold.
type output struct {
	// name of the attribute without its prefix, or path of the element below
	// result; case does not matter in a path.
	name string
	// id gives the attribute's configured name, for attributes whose names are
	// not public.
	id       func(*Attributes) string
	required bool
	kind     kind
	// longest is the greatest length in characters; 0 is maxText.
	longest int
	// in gives the value's place in an answer.
	in func(answer any) *string
}

// kind is what the value of an output consists of.
type kind uint8

const (
	anyText   kind = iota
	hexDigits      // at least one
	printable      // characters of ASCII
)

// Greatest lengths of outputs in characters. Some are generous, because the
// server's own limit is not public.
const (
	maxText    = 1024     // the server's own names have up to 255
	maxRelayed = 64 << 10 // an encrypted activation message has 8468
)

// Those of outputs that have a form.
var (
	maxActivationMessage         = form.ActivationMessage("").Rule().Max
	maxInstanceActivationMessage = form.InstanceActivationMessage("").Rule().Max // the server's own field is said to have 109
	maxActivationCode            = form.ActivationCode("").Rule().Max
	maxEventCounter              = form.EventCounter("").Rule().Max
	maxRequestMessage            = form.RequestMessage("").Rule().Max // messages of some 120 digits have been seen
)

// Command is a command whose values are those of a Q and whose answer is an A.
type Command[Q, A any] struct{ *Row }

// Call is the command with these values and a place for its answer.
func (c Command[Q, A]) Call(request *Q, answer *A) Call { return Call{c.Row, request, answer} }

// Call is a command with its values and the place for its answer: pointers to the
// structs of the Command.
type Call struct {
	*Row
	Request any
	Answer  any
}

// AwaitsPerson reports whether the server may wait for a person before it answers.
func (c Call) AwaitsPerson() bool { return c.Waits && !c.answered(c.Request) }

// in binds a field to its value in a request.
type in[Q any] struct {
	field
	value func(*Q) string
}

// out binds an output to its place in an answer.
type out[A any] struct {
	output
	place func(*A) *string
}

// define completes a row with its fields and outputs.
func define[Q, A any](r Row, request []in[Q], answer []out[A]) Command[Q, A] {
	for _, i := range request {
		if i.value != nil {
			i.of = func(request any) string { return i.value(request.(*Q)) }
		}
		r.fields = append(r.fields, i.field)
	}
	for _, o := range answer {
		o.in = func(answer any) *string { return o.place(answer.(*A)) }
		r.outputs = append(r.outputs, o.output)
	}
	return Command[Q, A]{&r}
}
