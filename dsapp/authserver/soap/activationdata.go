package soap

import (
	"errors"
	"slices"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// The names of the encrypted items of activation data in errors.
const (
	activationMessageItem = "mdl/activationMessage"
	activationCodeItem    = "standard/activationCode"
	eventCounterItem      = "standard/eventReactivationCounter"
)

// macMember is the only member that has the same name in every encrypted item.
const macMember = "mac"

// gatherActivationData finds the encrypted items in the answer to
// DSAPPSRPGenerateActivationData. The vendor documents the elements mdl and standard, and
// that an item has data, a counter and a MAC, but not the names of their elements. An
// element below mdl or standard that contains a mac is taken for an item.
func gatherActivationData(items []item, a *DSAPPSRPActivationData) error {
	elements := map[string][]item{} // by path
	for _, it := range items {
		if i := strings.LastIndexByte(it.name, '/'); i >= 0 && it.value != "" {
			path := strings.ToLower(it.name[:i])
			elements[path] = append(elements[path], item{strings.ToLower(it.name[i+1:]), it.value})
		}
	}
	a.ActivationMessage, a.ActivationCode, a.EventReactivationCounter = nil, nil, nil
	for path, members := range elements {
		if !slices.ContainsFunc(members, func(m item) bool { return m.name == macMember }) {
			continue
		}
		var name string
		var place **form.Sealed
		switch licence, _, _ := strings.Cut(path, "/"); {
		case licence == "mdl":
			name, place = activationMessageItem, &a.ActivationMessage
		case licence == "standard" && strings.Contains(path, "counter"):
			name, place = eventCounterItem, &a.EventReactivationCounter
		case licence == "standard":
			name, place = activationCodeItem, &a.ActivationCode
		default:
			continue
		}
		if *place != nil {
			return errors.New("answer with several " + name)
		}
		sealed, err := gatherSealed(name, members)
		if err != nil {
			return err
		}
		*place = sealed
	}
	switch {
	case a.ActivationMessage != nil && (a.ActivationCode != nil || a.EventReactivationCounter != nil):
		return errors.New("answer with activation data of two types of licence")
	case a.ActivationMessage == nil && a.ActivationCode == nil:
		return errors.New("answer without activation data")
	}
	return nil
}

// gatherSealed finds the members of an encrypted item by their likely names or, if one of
// them is missing, by similar names and by hex values. It ignores other members.
func gatherSealed(name string, members []item) (*form.Sealed, error) {
	e := &form.Sealed{}
	data, counter := part{name + "/encryptedData", &e.Data}, part{name + "/encryptedCounter", &e.Counter}
	mac := part{name + "/" + macMember, &e.MAC}
	var others []item
	for _, m := range members {
		var err error
		switch m.name {
		case "encrypteddata":
			err = data.assign(m.value)
		case "encryptedcounter":
			err = counter.assign(m.value)
		case macMember:
			err = mac.assign(m.value)
		default:
			others = append(others, m)
		}
		if err != nil {
			return nil, err
		}
	}
	hasData, hasCounter := e.Data != "", e.Counter != ""
	for _, m := range others {
		var err error
		switch {
		case !hasCounter && (strings.Contains(m.name, "counter") || strings.Contains(m.name, "vector")):
			err = counter.assign(m.value)
		case !hasData && form.IsHex(m.value):
			err = data.assign(m.value)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, p := range []part{data, counter, mac} {
		o := output{characters: hexDigits, longest: maxRelayed}
		switch problem := o.check(*p.value); {
		case *p.value == "":
			return nil, errors.New("answer without " + p.name)
		case problem != "":
			return nil, errors.New(p.name + " " + problem)
		}
	}
	return e, nil
}

// part is a member of an encrypted item.
type part struct {
	name  string // in errors
	value *string
}

func (p part) assign(value string) error {
	if *p.value != "" && *p.value != value {
		return errors.New("answer with different values of " + p.name)
	}
	*p.value = value
	return nil
}
