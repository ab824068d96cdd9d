package soap

// Statuses with which an instance says that it does not have a pending request,
// or that the request is not the device's to cancel.
const (
	statusNotFound  = "STAT_NOT_FOUND"
	statusNoSupport = "STAT_NOSUPPORT"
)

// The commands with their values in the order in which they are sent.
var (
	// MDLRegister has the authentication server verify the user, pick a multi-device
	// licence and begin its activation.
	MDLRegister = define(provisioning("PROVISIONCMD_MDL_REGISTER"),
		[]in[MDLRegisterRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "USERID"}, func(q *MDLRegisterRequest) string { return string(q.UserID) }},
			{field{name: "DOMAIN", optional: true}, func(q *MDLRegisterRequest) string { return string(q.Domain) }},
			{field{name: "STATIC_PASSWORD"}, func(q *MDLRegisterRequest) string { return string(q.StaticPassword) }},
		},
		[]out[MDLRegistered]{
			{output{name: "REGISTRATIONID", required: true}, func(a *MDLRegistered) *string { return &a.RegistrationID }},
			{
				output{name: "ACTIVATION_MESSAGE", id: activationMessageName, required: true, kind: hexDigits, longest: maxActivationMessage},
				func(a *MDLRegistered) *string { return &a.ActivationMessage },
			},
			{output{name: "SERIAL_NO"}, func(a *MDLRegistered) *string { return &a.SerialNumber }},
		})

	// MDLAddDevice uses up one of the licence's 99 sequence numbers with each success.
	MDLAddDevice = define(provisioning("PROVISIONCMD_MDL_ADD_DEVICE"),
		[]in[MDLAddDeviceRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "REGISTRATIONID"}, func(q *MDLAddDeviceRequest) string { return string(q.RegistrationID) }},
			{field{name: "DEVICE_CODE"}, func(q *MDLAddDeviceRequest) string { return string(q.DeviceCode) }},
			{field{name: "DESCRIPTION", id: deviceDescriptionName, optional: true}, func(q *MDLAddDeviceRequest) string { return q.Description }},
		},
		[]out[MDLDevice]{
			{
				output{
					name: "INSTANCE_ACTIVATION_MESSAGE", id: instanceActivationMessageName, required: true,
					kind: hexDigits, longest: maxInstanceActivationMessage,
				},
				func(a *MDLDevice) *string { return &a.InstanceActivationMessage },
			},
			{output{name: "SERIAL_NO"}, func(a *MDLDevice) *string { return &a.SerialNumber }},
		})

	// MDLActivate confirms the activation of a device.
	MDLActivate = define(provisioning("PROVISIONCMD_MDL_ACTIVATE"),
		[]in[MDLActivateRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "REGISTRATIONID"}, func(q *MDLActivateRequest) string { return string(q.RegistrationID) }},
			{field{name: "SIGNATURE"}, func(q *MDLActivateRequest) string { return string(q.Signature) }},
		},
		activated("USERID", "DOMAIN", "SERIAL_NO"))

	// Register asks for a standard licence.
	Register = define(provisioning("PROVISIONCMD_REGISTER"),
		[]in[RegisterRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "USERID"}, func(q *RegisterRequest) string { return string(q.UserID) }},
			{field{name: "DOMAIN", optional: true}, func(q *RegisterRequest) string { return string(q.Domain) }},
			{field{name: "STATIC_PASSWORD", optional: true}, func(q *RegisterRequest) string { return string(q.StaticPassword) }},
			{field{name: "SERIAL_NO", optional: true}, func(q *RegisterRequest) string { return string(q.SerialNumber) }},
		},
		[]out[Registered]{
			{output{name: "SERIAL_NO"}, func(a *Registered) *string { return &a.SerialNumber }},
			{output{name: "ACTIVATION_CODE", required: true, kind: printable, longest: maxActivationCode}, func(a *Registered) *string { return &a.ActivationCode }},
			{
				output{name: "EVENT_REACTIVATION_COUNTER", id: eventReactivationCounterName, kind: printable, longest: maxEventCounter},
				func(a *Registered) *string { return &a.EventReactivationCounter },
			},
		})

	// Activate confirms the activation of a standard licence.
	Activate = define(provisioning("PROVISIONCMD_ACTIVATE"),
		[]in[ActivateRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "USERID"}, func(q *ActivateRequest) string { return q.UserID }},
			{field{name: "DOMAIN", optional: true}, func(q *ActivateRequest) string { return q.Domain }},
			{field{name: "DP_RESPONSE", optional: true}, func(q *ActivateRequest) string { return string(q.Response) }},
			{field{name: "DERIVATION_CODE", optional: true}, func(q *ActivateRequest) string { return string(q.DerivationCode) }},
			{field{name: "REQUEST_TYPE", kind: xsdUnsignedInt, optional: true}, (*ActivateRequest).requestType},
		},
		activated("USERID", "DOMAIN", "SERIAL_NO"))

	// DSAPPSRPRegister registers a user for an exchange with the server itself.
	DSAPPSRPRegister = define(Row{operation: "dsappSRPRegister", scenario: provisioningScenario},
		[]in[DSAPPSRPRegisterRequest]{
			{field{name: "activationType", optional: true}, func(q *DSAPPSRPRegisterRequest) string { return q.ActivationType }},
			{field{name: "componentType"}, nil},
			{field{name: "user/userID"}, func(q *DSAPPSRPRegisterRequest) string { return string(q.UserID) }},
			{field{name: "user/domain", optional: true}, func(q *DSAPPSRPRegisterRequest) string { return string(q.Domain) }},
			{field{name: "credential/staticPassword"}, func(q *DSAPPSRPRegisterRequest) string { return string(q.StaticPassword) }},
			{field{name: "serialNumber", optional: true}, func(q *DSAPPSRPRegisterRequest) string { return string(q.SerialNumber) }},
		},
		[]out[DSAPPSRPRegistered]{
			{output{name: "registrationID", required: true}, func(a *DSAPPSRPRegistered) *string { return &a.RegistrationID }},
			{output{name: "activationPassword", required: true}, func(a *DSAPPSRPRegistered) *string { return &a.ActivationPassword }},
			{output{name: "serialNumber"}, func(a *DSAPPSRPRegistered) *string { return &a.SerialNumber }},
			{output{name: "digipassGatewayID"}, func(a *DSAPPSRPRegistered) *string { return &a.DIGIPASSGatewayID }},
		})

	// DSAPPSRPGenerateEphemeralKey is the first call of an exchange.
	DSAPPSRPGenerateEphemeralKey = define(Row{operation: "dsappSRPGenerateEphemeralKey", scenario: provisioningScenario},
		[]in[DSAPPSRPEphemeralKeyRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "registrationID"}, func(q *DSAPPSRPEphemeralKeyRequest) string { return string(q.RegistrationID) }},
			{field{name: "clientEphemeralPublicKey"}, func(q *DSAPPSRPEphemeralKeyRequest) string { return string(q.ClientPublic) }},
		},
		[]out[DSAPPSRPChallenge]{
			{
				output{name: "serverEphemeralPublicKey", required: true, kind: hexDigits, longest: maxRelayed},
				func(a *DSAPPSRPChallenge) *string { return &a.ServerPublic },
			},
			{output{name: "salt", required: true, kind: hexDigits, longest: maxRelayed}, func(a *DSAPPSRPChallenge) *string { return &a.Salt }},
		})

	// DSAPPSRPGenerateActivationData is the second call of an exchange.
	DSAPPSRPGenerateActivationData = define(
		Row{
			operation: "dsappSRPGenerateActivationData", scenario: provisioningScenario,
			gather: func(items []item, answer any) error {
				return gatherActivationData(items, answer.(*DSAPPSRPActivationData))
			},
		},
		[]in[DSAPPSRPEvidenceRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "registrationID"}, func(q *DSAPPSRPEvidenceRequest) string { return string(q.RegistrationID) }},
			{field{name: "clientEvidenceMessage"}, func(q *DSAPPSRPEvidenceRequest) string { return string(q.ClientEvidence) }},
		},
		[]out[DSAPPSRPActivationData]{
			{
				output{name: "serverEvidenceMessage", required: true, kind: hexDigits, longest: maxRelayed},
				func(a *DSAPPSRPActivationData) *string { return &a.ServerEvidence },
			},
		})

	// DSAPPSRPActivate is the final call for a standard licence.
	DSAPPSRPActivate = define(Row{operation: "dsappSRPActivate", scenario: provisioningScenario},
		[]in[DSAPPSRPActivateRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "registrationID"}, func(q *DSAPPSRPActivateRequest) string { return string(q.RegistrationID) }},
			{field{name: "credential/response", optional: true}, func(q *DSAPPSRPActivateRequest) string { return string(q.Response) }},
			{field{name: "credential/derivationCode", optional: true}, func(q *DSAPPSRPActivateRequest) string { return string(q.DerivationCode) }},
		},
		activated("user/userID", "user/domain", "serialNumber"))

	// UpdateDevicePNID registers the push notification ID of a device.
	UpdateDevicePNID = define(
		Row{operation: "updateDevicePNID", scenario: notificationScenario, Retry: RetryOnce},
		[]in[UpdateDevicePNIDRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "user/userID"}, func(q *UpdateDevicePNIDRequest) string { return string(q.UserID) }},
			{field{name: "user/domain", optional: true}, func(q *UpdateDevicePNIDRequest) string { return string(q.Domain) }},
			{field{name: "serialNumber"}, func(q *UpdateDevicePNIDRequest) string { return string(q.SerialNumber) }},
			{field{name: "devicePNID"}, func(q *UpdateDevicePNIDRequest) string { return string(q.DevicePNID) }},
		},
		[]out[Done]{})

	// AuthUser verifies a password or completes a pending login. A success that comes
	// with a status message is a login that was refused after all.
	AuthUser = define(
		Row{
			operation: "authUser", scenario: authenticationScenario,
			set: "credentialAttributeSet", prefix: "CREDFLD_", denial: "STATUS_MESSAGE",
			Waits: true, answered: func(request any) bool { return request.(*AuthUserRequest).ChallengeKey != "" },
		},
		[]in[AuthUserRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "USERID"}, func(q *AuthUserRequest) string { return string(q.UserID) }},
			{field{name: "DOMAIN", optional: true}, func(q *AuthUserRequest) string { return string(q.Domain) }},
			{field{name: "CHALLENGE_KEY", optional: true}, func(q *AuthUserRequest) string { return string(q.ChallengeKey) }},
			// One clear text in PASSWORD.
			{field{name: "PASSWORD_FORMAT", kind: xsdUnsignedInt, fixed: "0"}, nil},
			{field{name: "PASSWORD"}, func(q *AuthUserRequest) string { return q.Password }},
		},
		authenticated)

	// AuthSignature completes a pending signature.
	AuthSignature = define(
		Row{
			operation: "authSignature", scenario: signatureScenario,
			set: "attributeSet", prefix: "SIGNFLD_", dataFields: true,
		},
		[]in[AuthSignatureRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "USERID"}, func(q *AuthSignatureRequest) string { return string(q.UserID) }},
			{field{name: "DOMAIN", optional: true}, func(q *AuthSignatureRequest) string { return string(q.Domain) }},
			{field{name: "REQUEST_KEY"}, func(q *AuthSignatureRequest) string { return string(q.RequestKey) }},
			{field{name: "SIGNATURE"}, func(q *AuthSignatureRequest) string { return string(q.Signature) }},
		},
		authenticated)

	// GetPreparedSecureChallenge fetches a pending login.
	GetPreparedSecureChallenge = retrieval("getPreparedSecureChallenge", "challengeKey", authenticationScenario)
	// GetPreparedSignatureRequest fetches a pending signature.
	GetPreparedSignatureRequest = retrieval("getPreparedSignatureRequest", "requestKey", signatureScenario)
	// CancelAuthUser rejects a pending login.
	CancelAuthUser = cancellation("cancelAuthUser", "challengeKeyMessage", authenticationScenario)
	// CancelAuthSignatureRequest rejects a pending signature.
	CancelAuthSignatureRequest = cancellation("cancelAuthSignatureRequest", "requestKeyMessage", signatureScenario)
)

// provisioning is the row of a subcommand of provisioningExecute.
func provisioning(cmd string) Row {
	return Row{operation: "provisioningExecute", cmd: cmd, scenario: provisioningScenario, set: "attributeSet", prefix: "PROVFLD_"}
}

func retrieval(operation, key string, s scenario) Command[RetrieveRequest, Retrieved] {
	return define(
		Row{operation: operation, scenario: s, Retry: RetryFault, Elsewhere: []string{statusNotFound}},
		[]in[RetrieveRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "serialNumber"}, func(q *RetrieveRequest) string { return string(q.SerialNumber) }},
			{field{name: key}, func(q *RetrieveRequest) string { return string(q.Key) }},
		},
		[]out[Retrieved]{{
			output{name: "requestMessage", required: true, kind: hexDigits, longest: maxRequestMessage},
			func(a *Retrieved) *string { return &a.RequestMessage },
		}})
}

func cancellation(operation, key string, s scenario) Command[CancelRequest, Done] {
	return define(
		Row{operation: operation, scenario: s, Retry: RetryFault, Elsewhere: []string{statusNotFound, statusNoSupport}},
		[]in[CancelRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "serialNumber"}, func(q *CancelRequest) string { return string(q.SerialNumber) }},
			{field{name: key}, func(q *CancelRequest) string { return string(q.KeyMessage) }},
		},
		[]out[Done]{})
}

// activated are the outputs of a final call, under these names.
func activated(userID, domain, serialNumber string) []out[Activated] {
	return []out[Activated]{
		{output{name: userID}, func(a *Activated) *string { return &a.UserID }},
		{output{name: domain}, func(a *Activated) *string { return &a.Domain }},
		{output{name: serialNumber}, func(a *Activated) *string { return &a.SerialNumber }},
	}
}

var authenticated = []out[Authenticated]{
	{output{name: "USERID"}, func(a *Authenticated) *string { return &a.UserID }},
	{output{name: "DOMAIN"}, func(a *Authenticated) *string { return &a.Domain }},
	{output{name: "ORGANIZATIONAL_UNIT"}, func(a *Authenticated) *string { return &a.OrgUnit }},
	{output{name: "SERIAL_NO"}, func(a *Authenticated) *string { return &a.SerialNumber }},
}
