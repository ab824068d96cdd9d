package sandbox

import (
	"cmp"
	"context"
)

// signatureTitle is the title of a signature that was requested without one.
const signatureTitle = "Transaction"

// Names of signature attributes.
const (
	signComponentType      = "SIGNFLD_COMPONENT_TYPE"
	signUserID             = "SIGNFLD_USERID"
	signDomain             = "SIGNFLD_DOMAIN"
	signOrganizationalUnit = "SIGNFLD_ORGANIZATIONAL_UNIT"
	signSerialNumber       = "SIGNFLD_SERIAL_NO"
	signRequestKey         = "SIGNFLD_REQUEST_KEY"
	signRequestMessage     = "SIGNFLD_REQUEST_MESSAGE"
	signSignature          = "SIGNFLD_SIGNATURE"
	signDataField          = "SIGNFLD_DATA_FIELD_1"
	signTransactionTitle   = "SIGNFLD_TRANSACTION_TITLE"
)

func signatureCommands() []command {
	component := field{signComponentType, stringType, true, maxComponentType}
	commands := []command{{
		operation: "authSignature",
		component: signComponentType,
		form: attributeList{set: "attributeSet", dataFields: requiredDataFields, fields: []field{
			component,
			{signUserID, stringType, true, maxUserID},
			{signDomain, stringType, false, maxUserID},
			{signRequestKey, stringType, false, maxRequestKey},
			{signDataField, stringType, false, maxFieldText},
			{signSignature, stringType, true, maxSignature},
		}},
		handle: (*Server).authSignature,
	}, {
		operation: "genRequest",
		component: signComponentType,
		form: attributeList{set: "attributeSet", dataFields: optionalDataFields, fields: []field{
			component,
			{signUserID, stringType, true, maxUserID},
			{signDomain, stringType, false, maxUserID},
			{signSerialNumber, stringType, false, maxSerialNumber},
			{signTransactionTitle, stringType, false, maxFieldText},
		}},
		handle: (*Server).genRequest,
	}, {
		operation: "authSignatureRequest",
		component: "componentType",
		form: typedForm{
			{name: "componentType", required: true, max: maxComponentType},
			userNode(false),
			{name: "serialNumber", max: maxSerialNumber},
			// The real names are not public. The sandbox chose those of genRequest.
			{name: "push", children: []node{
				{name: "transactionTitle", max: maxFieldText},
				{name: dataFieldList, required: true},
			}},
			{name: "requestKey", max: maxRequestKey},
		},
		handle: (*Server).authSignatureRequest,
	}, {
		operation: "getPreparedSignatureRequest",
		component: "componentType",
		form:      keyForm("requestKey", maxRequestKey),
		handle: func(s *Server, _ context.Context, in values) ([]datum, error) {
			message, err := s.retrieve(KindSignature, in.text["serialNumber"], in.text["requestKey"])
			return []datum{{name: "requestMessage", value: message}}, err
		},
	}, {
		operation: "cancelAuthSignatureRequest",
		component: "componentType",
		form:      keyForm("requestKeyMessage", maxWrappedKey),
		handle: func(s *Server, _ context.Context, in values) ([]datum, error) {
			return nil, s.cancel(KindSignature, in.text["serialNumber"], in.text["requestKeyMessage"])
		},
	}}
	for i := range commands {
		commands[i].scenario = signatureScenario
	}
	return commands
}

// authSignature completes a pending signature. The sandbox does not support signatures over
// data fields in the call.
func (s *Server) authSignature(_ context.Context, in values) ([]datum, error) {
	key, hasKey := in.text[signRequestKey]
	if _, hasData := in.text[signDataField]; hasKey == hasData {
		return nil, refuse("STAT_INVPARAM", 0, "exactly one is needed of "+signRequestKey+" and "+signDataField)
	}
	if !hasKey {
		return nil, refuse("STAT_NOSUPPORT", 0, "the sandbox verifies signatures over pending requests only")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.unlockedUser(in.text[signUserID], in.text[signDomain])
	if err != nil {
		return nil, err
	}
	p, err := s.findRequestOf(u, KindSignature, key)
	if err != nil {
		return nil, err
	}
	if err := s.complete(p, in.text[signSignature]); err != nil {
		return nil, err
	}
	data := []datum{{name: signUserID, value: u.Name}, {name: signDomain, value: u.Domain}}
	if u.OrganizationalUnit != "" {
		data = append(data, datum{name: signOrganizationalUnit, value: u.OrganizationalUnit})
	}
	return append(data, datum{name: signSerialNumber, value: p.signer.serial}), nil
}

// genRequest prepares a signature whose key a device will scan.
func (s *Server) genRequest(_ context.Context, in values) ([]datum, error) {
	if len(in.fields) == 0 {
		return nil, refuse("STAT_INVPARAM", 0, "no data field")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.unlockedUser(in.text[signUserID], in.text[signDomain])
	if err != nil {
		return nil, err
	}
	p, message, err := s.prepareRequest(u, in.text[signSerialNumber], KindSignature, cmp.Or(in.text[signTransactionTitle], signatureTitle), in.fields)
	if err != nil {
		return nil, err
	}
	return []datum{
		{name: signUserID, value: u.Name},
		{name: signDomain, value: u.Domain},
		{name: signSerialNumber, value: p.candidates[0].serial},
		{name: signRequestKey, value: p.request.Key},
		{name: signRequestMessage, value: message},
	}, nil
}

// authSignatureRequest requests a signature over data fields, or waits for a request that
// genRequest prepared, and blocks until the device answers. The data of a success is not
// public; the sandbox chose user, domain and serial number.
func (s *Server) authSignatureRequest(ctx context.Context, in values) ([]datum, error) {
	key, hasKey := in.text["requestKey"]
	if hasKey == (in.fields != nil) {
		return nil, callerError("exactly one is needed of push and requestKey")
	}
	if !hasKey && len(in.fields) == 0 {
		return nil, refuse("STAT_INVPARAM", 0, "no data field")
	}
	s.mu.Lock()
	u, err := s.unlockedUser(in.text["user/userID"], in.text["user/domain"])
	var p *pendingRequest
	switch {
	case err != nil:
	case hasKey:
		p, err = s.findRequestOf(u, KindSignature, key)
	default:
		p, err = s.pushRequest(u, in.text["serialNumber"], KindSignature, cmp.Or(in.text["push/transactionTitle"], signatureTitle), in.fields)
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	used, err := s.await(ctx, p)
	if err != nil {
		return nil, err
	}
	return []datum{
		{name: "user/userID", value: u.Name},
		{name: "user/domain", value: u.Domain},
		{name: "serialNumber", value: used.serial},
	}, nil
}
