package authserver

import "errors"

// The commands, their attributes and types are those of the vendor's
// documentation. Its WSDL and some names of attributes are not public: those of
// the activation messages and of what MDL_ACTIVATE returns are this project's
// choice, and the Attributes can be configured. So is which command may be sent
// again after which failure.

// scenario is a family of operations of the authentication server: the
// namespace of its operation elements.
type scenario struct {
	prefix    string
	namespace string
}

var (
	provisioningScenario   = scenario{"prov", "http://www.vasco.com/IdentikeyServer/IdentikeyTypes/Provisioning"}
	authenticationScenario = scenario{"aut", "http://www.vasco.com/IdentikeyServer/IdentikeyTypes/Authentication"}
	signatureScenario      = scenario{"sig", "http://www.vasco.com/IdentikeyServer/IdentikeyTypes/Signature"}
)

// component selects which of the ComponentTypes a command names.
type component uint8

const (
	provisioningComponent component = iota
	authenticationComponent
	signatureComponent
	notificationComponent
)

// retryClass says after which failures another instance may get a command. Every
// command may go to another instance as long as no byte of it was sent.
type retryClass uint8

const (
	// retryNotSent is for commands that count attempts, burn sequence numbers or
	// verify one-time values.
	retryNotSent retryClass = iota
	// retryFault is for commands that did nothing if the server reports that it
	// is broken, but that may have been carried out if no answer came.
	retryFault
	// retryOnce is for commands that can be carried out twice.
	retryOnce
)

// permits reports whether the class lets another instance try after err.
func (c retryClass) permits(err error) bool {
	if errors.Is(err, ErrNotSent) {
		return true
	}
	if f, ok := errors.AsType[*Fault](err); ok {
		return c != retryNotSent && !f.Sender
	}
	if r, ok := errors.AsType[*Refusal](err); ok {
		return c != retryNotSent && r.BackendFault()
	}
	return c == retryOnce && outcomeUnknown(err)
}

// outcomeUnknown reports whether a command that failed with err may have been
// carried out: it was sent, and the server did not say what became of it.
func outcomeUnknown(err error) bool {
	if _, ok := errors.AsType[*Fault](err); ok {
		return false
	}
	c, ok := errors.AsType[*CallError](err)
	return ok && !errors.Is(c.Reason, ErrNotSent)
}

// Statuses with which an instance says that it does not have a pending request,
// or that the request is not the device's to cancel.
const (
	statusNotFound  = "STAT_NOT_FOUND"
	statusNoSupport = "STAT_NOSUPPORT"
)

// The xsi:type of a value. The server answers a wrong one with a Fault.
const (
	xsdString      = "xsd:string"
	xsdUnsignedInt = "xsd:unsignedInt"
)

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
	// fixed is sent if nothing else is given.
	fixed    string
	optional bool
}

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
	maxText                      = 1024 // the server's own names have up to 255
	maxActivationMessage         = 4234
	maxInstanceActivationMessage = 1024 // the server's own field is said to have 109
	maxActivationCode            = 4142
	maxEventCounter              = 91
	maxRequestMessage            = 16 << 10 // messages of some 120 digits have been seen
	maxRelayed                   = 64 << 10 // an encrypted activation message has 8468
)

// command describes one command. In the attribute list family a request is a
// list of typed values named by attributes; in the typed family every value is
// an element of its own.
type command struct {
	operation string
	scenario  scenario
	// cmd is the subcommand, if the operation has any.
	cmd string
	// set is the element that holds the attributes; empty in the typed family.
	set string
	// prefix of the names of attributes.
	prefix    string
	component component
	fields    []field
	// dataFields adds a data field list with one meaningless entry: the server
	// refuses the command without it.
	dataFields bool
	outputs    []output
	// gather adds the outputs whose names are not fixed; nil if there are none.
	gather func(got *answer, out values) error
	// denial is the name of an output with which a success is a refusal after all.
	denial string
	retry  retryClass
	// waits says that the server may wait for a person before it answers.
	waits bool
	// answered is the name of a field with which it does not, since the person has
	// answered; empty if there is none.
	answered string
	// elsewhere are the statuses that say no more than that the instance does not
	// have what the command is about: another one may have it.
	elsewhere []string
}

func (c *command) typed() bool { return c.set == "" }

// String is what errors and logs call the command.
func (c *command) String() string {
	if c.cmd != "" {
		return c.cmd
	}
	return c.operation
}

// componentField is the name of the field that carries the component type.
func (c *command) componentField() string {
	if c.typed() {
		return "componentType"
	}
	return "COMPONENT_TYPE"
}

// inputName is the full name of a field; empty if it is not to be sent.
func (c *command) inputName(f *field, a *Attributes) string {
	if f.id != nil {
		return f.id(a)
	}
	return c.prefix + f.name
}

// outputName is the full name of an output.
func (c *command) outputName(o *output, a *Attributes) string {
	if o.id != nil {
		return o.id(a)
	}
	return c.prefix + o.name
}

// commandID names a row of commands.
type commandID uint8

const (
	mdlRegister commandID = iota
	mdlAddDevice
	mdlActivate
	register
	activate
	dsappSRPRegister
	dsappSRPGenerateEphemeralKey
	dsappSRPGenerateActivationData
	dsappSRPActivate
	updateDevicePNID
	authUser
	getPreparedSecureChallenge
	cancelAuthUser
	authSignature
	getPreparedSignatureRequest
	cancelAuthSignatureRequest
)

// commands lists every command with its values in the order in which they are sent.
var commands = [...]command{
	mdlRegister: {
		operation: "provisioningExecute", cmd: "PROVISIONCMD_MDL_REGISTER", scenario: provisioningScenario,
		set: "attributeSet", prefix: "PROVFLD_",
		fields: []field{{name: "COMPONENT_TYPE"}, {name: "USERID"}, {name: "DOMAIN", optional: true}, {name: "STATIC_PASSWORD"}},
		outputs: []output{
			{name: "REGISTRATIONID", required: true},
			{name: "ACTIVATION_MESSAGE", id: activationMessageName, required: true, kind: hexDigits, longest: maxActivationMessage},
			{name: "SERIAL_NO"},
		},
	},
	mdlAddDevice: {
		operation: "provisioningExecute", cmd: "PROVISIONCMD_MDL_ADD_DEVICE", scenario: provisioningScenario,
		set: "attributeSet", prefix: "PROVFLD_",
		fields: []field{
			{name: "COMPONENT_TYPE"},
			{name: "REGISTRATIONID"},
			{name: "DEVICE_CODE"},
			{name: "DESCRIPTION", id: deviceDescriptionName, optional: true},
		},
		outputs: []output{
			{
				name: "INSTANCE_ACTIVATION_MESSAGE", id: instanceActivationMessageName, required: true,
				kind: hexDigits, longest: maxInstanceActivationMessage,
			},
			{name: "SERIAL_NO"},
		},
	},
	mdlActivate: {
		operation: "provisioningExecute", cmd: "PROVISIONCMD_MDL_ACTIVATE", scenario: provisioningScenario,
		set: "attributeSet", prefix: "PROVFLD_",
		fields:  []field{{name: "COMPONENT_TYPE"}, {name: "REGISTRATIONID"}, {name: "SIGNATURE"}},
		outputs: []output{{name: "USERID"}, {name: "DOMAIN"}, {name: "SERIAL_NO"}},
	},
	register: {
		operation: "provisioningExecute", cmd: "PROVISIONCMD_REGISTER", scenario: provisioningScenario,
		set: "attributeSet", prefix: "PROVFLD_",
		fields: []field{
			{name: "COMPONENT_TYPE"},
			{name: "USERID"},
			{name: "DOMAIN", optional: true},
			{name: "STATIC_PASSWORD", optional: true},
			{name: "SERIAL_NO", optional: true},
		},
		outputs: []output{
			{name: "SERIAL_NO"},
			{name: "ACTIVATION_CODE", required: true, kind: printable, longest: maxActivationCode},
			{name: "EVENT_REACTIVATION_COUNTER", id: eventReactivationCounterName, kind: printable, longest: maxEventCounter},
		},
	},
	activate: {
		operation: "provisioningExecute", cmd: "PROVISIONCMD_ACTIVATE", scenario: provisioningScenario,
		set: "attributeSet", prefix: "PROVFLD_",
		fields: []field{
			{name: "COMPONENT_TYPE"},
			{name: "USERID"},
			{name: "DOMAIN", optional: true},
			{name: "DP_RESPONSE", optional: true},
			{name: "DERIVATION_CODE", optional: true},
			{name: "REQUEST_TYPE", kind: xsdUnsignedInt, optional: true},
		},
		outputs: []output{{name: "USERID"}, {name: "DOMAIN"}, {name: "SERIAL_NO"}},
	},
	dsappSRPRegister: {
		operation: "dsappSRPRegister", scenario: provisioningScenario,
		fields: []field{
			{name: "activationType", optional: true},
			{name: "componentType"},
			{name: "user/userID"},
			{name: "user/domain", optional: true},
			{name: "credential/staticPassword"},
			{name: "serialNumber", optional: true},
		},
		outputs: []output{
			{name: "registrationID", required: true},
			{name: "activationPassword", required: true},
			{name: "serialNumber"},
			{name: "digipassGatewayID"},
		},
	},
	dsappSRPGenerateEphemeralKey: {
		operation: "dsappSRPGenerateEphemeralKey", scenario: provisioningScenario,
		fields: []field{{name: "componentType"}, {name: "registrationID"}, {name: "clientEphemeralPublicKey"}},
		outputs: []output{
			{name: "serverEphemeralPublicKey", required: true, kind: hexDigits, longest: maxRelayed},
			{name: "salt", required: true, kind: hexDigits, longest: maxRelayed},
		},
	},
	dsappSRPGenerateActivationData: {
		operation: "dsappSRPGenerateActivationData", scenario: provisioningScenario,
		fields:  []field{{name: "componentType"}, {name: "registrationID"}, {name: "clientEvidenceMessage"}},
		outputs: []output{{name: "serverEvidenceMessage", required: true, kind: hexDigits, longest: maxRelayed}},
		gather:  gatherActivationData,
	},
	dsappSRPActivate: {
		operation: "dsappSRPActivate", scenario: provisioningScenario,
		fields: []field{
			{name: "componentType"},
			{name: "registrationID"},
			{name: "credential/response", optional: true},
			{name: "credential/derivationCode", optional: true},
		},
		outputs: []output{{name: "user/userID"}, {name: "user/domain"}, {name: "serialNumber"}},
	},
	updateDevicePNID: {
		operation: "updateDevicePNID", scenario: provisioningScenario, component: notificationComponent, retry: retryOnce,
		fields: []field{
			{name: "componentType"},
			{name: "user/userID"},
			{name: "user/domain", optional: true},
			{name: "serialNumber"},
			{name: "devicePNID"},
		},
	},
	authUser: {
		operation: "authUser", scenario: authenticationScenario, component: authenticationComponent,
		waits: true, answered: "CHALLENGE_KEY",
		set: "credentialAttributeSet", prefix: "CREDFLD_",
		fields: []field{
			{name: "COMPONENT_TYPE"},
			{name: "USERID"},
			{name: "DOMAIN", optional: true},
			{name: "CHALLENGE_KEY", optional: true},
			// One clear text in PASSWORD.
			{name: "PASSWORD_FORMAT", kind: xsdUnsignedInt, fixed: "0"},
			{name: "PASSWORD"},
		},
		outputs: []output{
			{name: "USERID"},
			{name: "DOMAIN"},
			{name: "ORGANIZATIONAL_UNIT"},
			{name: "SERIAL_NO"},
		},
		denial: "STATUS_MESSAGE",
	},
	getPreparedSecureChallenge: {
		operation: "getPreparedSecureChallenge", scenario: authenticationScenario, component: authenticationComponent, retry: retryFault,
		fields:    []field{{name: "componentType"}, {name: "serialNumber"}, {name: "challengeKey"}},
		outputs:   []output{{name: "requestMessage", required: true, kind: hexDigits, longest: maxRequestMessage}},
		elsewhere: []string{statusNotFound},
	},
	cancelAuthUser: {
		operation: "cancelAuthUser", scenario: authenticationScenario, component: authenticationComponent, retry: retryFault,
		fields:    []field{{name: "componentType"}, {name: "serialNumber"}, {name: "challengeKeyMessage"}},
		elsewhere: []string{statusNotFound, statusNoSupport},
	},
	authSignature: {
		operation: "authSignature", scenario: signatureScenario, component: signatureComponent,
		set: "attributeSet", prefix: "SIGNFLD_", dataFields: true,
		fields: []field{
			{name: "COMPONENT_TYPE"},
			{name: "USERID"},
			{name: "DOMAIN", optional: true},
			{name: "REQUEST_KEY"},
			{name: "SIGNATURE"},
		},
		outputs: []output{{name: "USERID"}, {name: "DOMAIN"}, {name: "ORGANIZATIONAL_UNIT"}, {name: "SERIAL_NO"}},
	},
	getPreparedSignatureRequest: {
		operation: "getPreparedSignatureRequest", scenario: signatureScenario, component: signatureComponent, retry: retryFault,
		fields:    []field{{name: "componentType"}, {name: "serialNumber"}, {name: "requestKey"}},
		outputs:   []output{{name: "requestMessage", required: true, kind: hexDigits, longest: maxRequestMessage}},
		elsewhere: []string{statusNotFound},
	},
	cancelAuthSignatureRequest: {
		operation: "cancelAuthSignatureRequest", scenario: signatureScenario, component: signatureComponent, retry: retryFault,
		fields:    []field{{name: "componentType"}, {name: "serialNumber"}, {name: "requestKeyMessage"}},
		elsewhere: []string{statusNotFound, statusNoSupport},
	},
}

func activationMessageName(a *Attributes) string         { return a.ActivationMessage }
func instanceActivationMessageName(a *Attributes) string { return a.InstanceActivationMessage }
func eventReactivationCounterName(a *Attributes) string  { return a.EventReactivationCounter }
func deviceDescriptionName(a *Attributes) string         { return a.DeviceDescription }
