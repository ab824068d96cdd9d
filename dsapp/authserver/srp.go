package authserver

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// The commands of an activation exchange that the authentication server carries
// out itself. Their values are relayed as they are.

// DSAPPSRPRegister registers a user for an exchange.
type DSAPPSRPRegister struct {
	UserID         string
	Domain         string // optional
	StaticPassword string
	// SerialNumber of the licence; needed if the user has several.
	SerialNumber string
}

// DSAPPSRPRegistered is the outcome of DSAPPSRPRegister.
type DSAPPSRPRegistered struct {
	// Instance is the name of the instance that holds the registration.
	Instance           string
	RegistrationID     string
	ActivationPassword string
	// SerialNumber of the licence and DIGIPASSGatewayID are empty if the server
	// did not tell.
	SerialNumber      string
	DIGIPASSGatewayID string
}

// DSAPPSRPRegister carries out dsappSRPRegister on an instance chosen by policy.
// The error is a *Refusal or a *CallError.
func (s *Servers) DSAPPSRPRegister(ctx context.Context, r DSAPPSRPRegister) (DSAPPSRPRegistered, error) {
	out, instance, err := s.call(ctx, target{}, dsappSRPRegister, values{
		"user/userID": r.UserID, "user/domain": r.Domain, "credential/staticPassword": r.StaticPassword, "serialNumber": r.SerialNumber,
	})
	if err != nil {
		return DSAPPSRPRegistered{}, err
	}
	return DSAPPSRPRegistered{
		Instance:           instance,
		RegistrationID:     out["registrationID"],
		ActivationPassword: out["activationPassword"],
		SerialNumber:       out["serialNumber"],
		DIGIPASSGatewayID:  out["digipassGatewayID"],
	}, nil
}

// DSAPPSRPEphemeralKey is the first call of an exchange.
type DSAPPSRPEphemeralKey struct {
	RegistrationID string
	// ClientPublic is the client's ephemeral public key in hex digits.
	ClientPublic string
}

// DSAPPSRPChallenge answers the first call, in hex digits.
type DSAPPSRPChallenge struct {
	// Instance is the name of the instance that did it.
	Instance     string
	ServerPublic string
	Salt         string
}

// DSAPPSRPGenerateEphemeralKey carries out the first call on the named instance,
// or on one chosen by policy if the name is empty. The error is a *Refusal or a
// *CallError.
func (s *Servers) DSAPPSRPGenerateEphemeralKey(ctx context.Context, instance string, r DSAPPSRPEphemeralKey) (DSAPPSRPChallenge, error) {
	out, instance, err := s.call(ctx, at(instance), dsappSRPGenerateEphemeralKey, values{
		"registrationID": r.RegistrationID, "clientEphemeralPublicKey": r.ClientPublic,
	})
	if err != nil {
		return DSAPPSRPChallenge{}, err
	}
	return DSAPPSRPChallenge{Instance: instance, ServerPublic: out["serverEphemeralPublicKey"], Salt: out["salt"]}, nil
}

// DSAPPSRPEvidence is the second call of an exchange.
type DSAPPSRPEvidence struct {
	RegistrationID string
	// ClientEvidence is the client's evidence message in hex digits.
	ClientEvidence string
}

// Encrypted is one encrypted item of activation data, in hex digits.
type Encrypted struct {
	Data    string
	Counter string
	MAC     string
}

// DSAPPSRPActivationData answers the second call. What does not belong to the
// type of the licence is nil.
type DSAPPSRPActivationData struct {
	// Instance is the name of the instance that did it.
	Instance string
	// ServerEvidence in hex digits.
	ServerEvidence string
	// ActivationMessage is Activation Message 1 of a multi-device licence.
	ActivationMessage *Encrypted
	// ActivationCode and EventReactivationCounter are those of a standard licence.
	ActivationCode           *Encrypted
	EventReactivationCounter *Encrypted
}

// DSAPPSRPGenerateActivationData carries out the second call on the named
// instance, or on one chosen by policy if the name is empty. The error is a
// *Refusal or a *CallError.
func (s *Servers) DSAPPSRPGenerateActivationData(ctx context.Context, instance string, r DSAPPSRPEvidence) (DSAPPSRPActivationData, error) {
	out, instance, err := s.call(ctx, at(instance), dsappSRPGenerateActivationData, values{
		"registrationID": r.RegistrationID, "clientEvidenceMessage": r.ClientEvidence,
	})
	if err != nil {
		return DSAPPSRPActivationData{}, err
	}
	return DSAPPSRPActivationData{
		Instance:                 instance,
		ServerEvidence:           out["serverEvidenceMessage"],
		ActivationMessage:        encrypted(out, activationMessageItem),
		ActivationCode:           encrypted(out, activationCodeItem),
		EventReactivationCounter: encrypted(out, eventCounterItem),
	}, nil
}

// The encrypted items of activation data: what they are called here, and in errors.
const (
	activationMessageItem = "mdl/activationMessage"
	activationCodeItem    = "standard/activationCode"
	eventCounterItem      = "standard/eventReactivationCounter"
)

// The three members of an encrypted item.
const (
	dataMember    = "encryptedData"
	counterMember = "encryptedCounter"
	macMember     = "mac"
)

// encrypted gives one item; nil if the answer did not hold it.
func encrypted(out values, name string) *Encrypted {
	if out[name+"/"+macMember] == "" {
		return nil
	}
	return &Encrypted{Data: out[name+"/"+dataMember], Counter: out[name+"/"+counterMember], MAC: out[name+"/"+macMember]}
}

// gatherActivationData finds the encrypted items in the answer to the second
// call. Only mdl, standard and that an item has data, a counter and a MAC are
// documented, not the names of the elements: an item is an element below one of
// the two that holds a mac.
func gatherActivationData(got *answer, out values) error {
	elements := map[string][]item{} // by path
	for _, it := range got.items {
		if i := strings.LastIndexByte(it.name, '/'); i >= 0 && it.value != "" {
			path := strings.ToLower(it.name[:i])
			elements[path] = append(elements[path], item{strings.ToLower(it.name[i+1:]), it.value})
		}
	}
	for path, members := range elements {
		if !slices.ContainsFunc(members, func(m item) bool { return m.name == macMember }) {
			continue
		}
		var name string
		switch licence, _, _ := strings.Cut(path, "/"); {
		case licence == "mdl":
			name = activationMessageItem
		case licence == "standard" && strings.Contains(path, "counter"):
			name = eventCounterItem
		case licence == "standard":
			name = activationCodeItem
		default:
			continue
		}
		if out[name+"/"+macMember] != "" {
			return errors.New("answer with several " + name)
		}
		if err := gatherEncrypted(name, members, out); err != nil {
			return err
		}
	}
	multi := out[activationMessageItem+"/"+macMember] != ""
	standard := out[activationCodeItem+"/"+macMember] != ""
	counter := out[eventCounterItem+"/"+macMember] != ""
	switch {
	case multi && (standard || counter):
		return errors.New("answer with activation data of two types of licence")
	case !multi && !standard:
		return errors.New("answer without activation data")
	}
	return nil
}

// gatherEncrypted finds the members of an encrypted item: by their likely names
// or, if one is missing, by what another name says. Other members do not matter.
func gatherEncrypted(name string, members []item, out values) error {
	assign := func(member, value string) error {
		key := name + "/" + member
		if before := out[key]; before != "" && before != value {
			return errors.New("answer with different values of " + key)
		}
		out[key] = value
		return nil
	}
	var others []item
	for _, m := range members {
		var err error
		switch m.name {
		case strings.ToLower(dataMember):
			err = assign(dataMember, m.value)
		case strings.ToLower(counterMember):
			err = assign(counterMember, m.value)
		case macMember:
			err = assign(macMember, m.value)
		default:
			others = append(others, m)
		}
		if err != nil {
			return err
		}
	}
	hasData, hasCounter := out[name+"/"+dataMember] != "", out[name+"/"+counterMember] != ""
	for _, m := range others {
		var err error
		switch {
		case !hasCounter && (strings.Contains(m.name, "counter") || strings.Contains(m.name, "vector")):
			err = assign(counterMember, m.value)
		case !hasData && isHex(m.value):
			err = assign(dataMember, m.value)
		}
		if err != nil {
			return err
		}
	}
	for _, member := range []string{dataMember, counterMember, macMember} {
		key := name + "/" + member
		o := output{kind: hexDigits, longest: maxRelayed}
		switch problem := o.check(out[key]); {
		case out[key] == "":
			return errors.New("answer without " + key)
		case problem != "":
			return errors.New(key + " " + problem)
		}
	}
	return nil
}

// DSAPPSRPActivate is the final call for a standard licence.
type DSAPPSRPActivate struct {
	RegistrationID string
	// Response is the device's first one-time password. Either it or
	// DerivationCode is given.
	Response string
	// DerivationCode binds the device: up to 27 decimal or hexadecimal digits.
	DerivationCode string
}

// DSAPPSRPActivate carries out dsappSRPActivate on the named instance, or on one
// chosen by policy if the name is empty. The error is a *Refusal or a *CallError.
func (s *Servers) DSAPPSRPActivate(ctx context.Context, instance string, r DSAPPSRPActivate) (Activated, error) {
	out, instance, err := s.call(ctx, at(instance), dsappSRPActivate, values{
		"registrationID": r.RegistrationID, "credential/response": r.Response, "credential/derivationCode": r.DerivationCode,
	})
	if err != nil {
		return Activated{}, err
	}
	return Activated{Instance: instance, UserID: out["user/userID"], Domain: out["user/domain"], SerialNumber: out["serialNumber"]}, nil
}
