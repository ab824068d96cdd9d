package soap

const (
	// statusNotFound says that the instance does not have the pending request.
	statusNotFound = "STAT_NOT_FOUND"
	// statusNoSupport says that the device may not cancel the pending request. An instance
	// that does not have the request may say the same.
	statusNoSupport = "STAT_NOSUPPORT"
)

// The table of the commands. The fields stand in the order in which they are sent. A field
// without a function is the component type or has a constant value.
var (
	// MDLRegister verifies the user, selects a multi-device licence and begins its
	// activation.
	MDLRegister = define(registration(provisioning("PROVISIONCMD_MDL_REGISTER")),
		[]boundField[MDLRegisterRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "USERID"}, func(q *MDLRegisterRequest) string { return string(q.UserID) }},
			{field{name: "DOMAIN", optional: true}, func(q *MDLRegisterRequest) string { return string(q.Domain) }},
			{field{name: "STATIC_PASSWORD"}, func(q *MDLRegisterRequest) string { return string(q.StaticPassword) }},
		},
		[]boundOutput[MDLRegistered]{
			{output{name: "REGISTRATIONID", required: true}, func(a *MDLRegistered) *string { return &a.RegistrationID }},
			{
				output{name: "ACTIVATION_MESSAGE", configuredName: activationMessageName, required: true, characters: hexDigits, longest: maxActivationMessage},
				func(a *MDLRegistered) *string { return &a.ActivationMessage },
			},
			{output{name: "SERIAL_NO"}, func(a *MDLRegistered) *string { return &a.SerialNumber }},
		})

	// MDLAddDevice adds a device to a multi-device licence. Each success uses up one of
	// the licence's 99 sequence numbers.
	MDLAddDevice = define(provisioning("PROVISIONCMD_MDL_ADD_DEVICE"),
		[]boundField[MDLAddDeviceRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "REGISTRATIONID"}, func(q *MDLAddDeviceRequest) string { return string(q.RegistrationID) }},
			{field{name: "DEVICE_CODE"}, func(q *MDLAddDeviceRequest) string { return string(q.DeviceCode) }},
			{field{name: "DESCRIPTION", configuredName: deviceDescriptionName, optional: true}, func(q *MDLAddDeviceRequest) string { return q.Description }},
		},
		[]boundOutput[MDLDevice]{
			{
				output{
					name: "INSTANCE_ACTIVATION_MESSAGE", configuredName: instanceActivationMessageName, required: true,
					characters: hexDigits, longest: maxInstanceActivationMessage,
				},
				func(a *MDLDevice) *string { return &a.InstanceActivationMessage },
			},
			{output{name: "SERIAL_NO"}, func(a *MDLDevice) *string { return &a.SerialNumber }},
		})

	// MDLActivate confirms the activation of a device.
	MDLActivate = define(provisioning("PROVISIONCMD_MDL_ACTIVATE"),
		[]boundField[MDLActivateRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "REGISTRATIONID"}, func(q *MDLActivateRequest) string { return string(q.RegistrationID) }},
			{field{name: "SIGNATURE"}, func(q *MDLActivateRequest) string { return string(q.Signature) }},
		},
		activated("USERID", "DOMAIN", "SERIAL_NO"))

	// Register verifies the user and asks for a standard licence.
	Register = define(registration(provisioning("PROVISIONCMD_REGISTER")),
		[]boundField[RegisterRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "USERID"}, func(q *RegisterRequest) string { return string(q.UserID) }},
			{field{name: "DOMAIN", optional: true}, func(q *RegisterRequest) string { return string(q.Domain) }},
			{field{name: "STATIC_PASSWORD", optional: true}, func(q *RegisterRequest) string { return string(q.StaticPassword) }},
			{field{name: "SERIAL_NO", optional: true}, func(q *RegisterRequest) string { return string(q.SerialNumber) }},
		},
		[]boundOutput[Registered]{
			{output{name: "SERIAL_NO"}, func(a *Registered) *string { return &a.SerialNumber }},
			{output{name: "ACTIVATION_CODE", required: true, characters: printable, longest: maxActivationCode}, func(a *Registered) *string { return &a.ActivationCode }},
			{
				output{name: "EVENT_REACTIVATION_COUNTER", configuredName: eventReactivationCounterName, characters: printable, longest: maxEventCounter},
				func(a *Registered) *string { return &a.EventReactivationCounter },
			},
		})

	// Activate confirms the activation of a standard licence.
	Activate = define(provisioning("PROVISIONCMD_ACTIVATE"),
		[]boundField[ActivateRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "USERID"}, func(q *ActivateRequest) string { return q.UserID }},
			{field{name: "DOMAIN", optional: true}, func(q *ActivateRequest) string { return q.Domain }},
			{field{name: "DP_RESPONSE", optional: true}, func(q *ActivateRequest) string { return string(q.Response) }},
			{field{name: "DERIVATION_CODE", optional: true}, func(q *ActivateRequest) string { return string(q.DerivationCode) }},
			{field{name: "REQUEST_TYPE", xsiType: xsdUnsignedInt, optional: true}, (*ActivateRequest).requestType},
		},
		activated("USERID", "DOMAIN", "SERIAL_NO"))

	// DSAPPSRPRegister registers a user for an SRP exchange that the authentication server
	// carries out itself. The gateway only relays such an exchange.
	DSAPPSRPRegister = define(registration(Row{operation: "dsappSRPRegister", scenario: provisioningScenario}),
		[]boundField[DSAPPSRPRegisterRequest]{
			{field{name: "activationType", optional: true}, func(q *DSAPPSRPRegisterRequest) string { return q.ActivationType }},
			{field{name: "componentType"}, nil},
			{field{name: "user/userID"}, func(q *DSAPPSRPRegisterRequest) string { return string(q.UserID) }},
			{field{name: "user/domain", optional: true}, func(q *DSAPPSRPRegisterRequest) string { return string(q.Domain) }},
			{field{name: "credential/staticPassword"}, func(q *DSAPPSRPRegisterRequest) string { return string(q.StaticPassword) }},
			{field{name: "serialNumber", optional: true}, func(q *DSAPPSRPRegisterRequest) string { return string(q.SerialNumber) }},
		},
		[]boundOutput[DSAPPSRPRegistered]{
			{output{name: "registrationID", required: true}, func(a *DSAPPSRPRegistered) *string { return &a.RegistrationID }},
			{output{name: "activationPassword", required: true}, func(a *DSAPPSRPRegistered) *string { return &a.ActivationPassword }},
			{output{name: "serialNumber"}, func(a *DSAPPSRPRegistered) *string { return &a.SerialNumber }},
			{output{name: "digipassGatewayID"}, func(a *DSAPPSRPRegistered) *string { return &a.DIGIPASSGatewayID }},
		})

	// DSAPPSRPGenerateEphemeralKey is the first call of a relayed SRP exchange.
	DSAPPSRPGenerateEphemeralKey = define(Row{operation: "dsappSRPGenerateEphemeralKey", scenario: provisioningScenario},
		[]boundField[DSAPPSRPEphemeralKeyRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "registrationID"}, func(q *DSAPPSRPEphemeralKeyRequest) string { return string(q.RegistrationID) }},
			{field{name: "clientEphemeralPublicKey"}, func(q *DSAPPSRPEphemeralKeyRequest) string { return string(q.ClientPublic) }},
		},
		[]boundOutput[DSAPPSRPChallenge]{
			{
				output{name: "serverEphemeralPublicKey", required: true, characters: hexDigits, longest: maxRelayed},
				func(a *DSAPPSRPChallenge) *string { return &a.ServerPublic },
			},
			{output{name: "salt", required: true, characters: hexDigits, longest: maxRelayed}, func(a *DSAPPSRPChallenge) *string { return &a.Salt }},
		})

	// DSAPPSRPGenerateActivationData is the second call of a relayed SRP exchange.
	DSAPPSRPGenerateActivationData = define(
		Row{
			operation: "dsappSRPGenerateActivationData", scenario: provisioningScenario,
			gather: func(items []item, answer any) error {
				return gatherActivationData(items, answer.(*DSAPPSRPActivationData))
			},
		},
		[]boundField[DSAPPSRPEvidenceRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "registrationID"}, func(q *DSAPPSRPEvidenceRequest) string { return string(q.RegistrationID) }},
			{field{name: "clientEvidenceMessage"}, func(q *DSAPPSRPEvidenceRequest) string { return string(q.ClientEvidence) }},
		},
		[]boundOutput[DSAPPSRPActivationData]{
			{
				output{name: "serverEvidenceMessage", required: true, characters: hexDigits, longest: maxRelayed},
				func(a *DSAPPSRPActivationData) *string { return &a.ServerEvidence },
			},
		})

	// DSAPPSRPActivate confirms the activation of a standard licence after a relayed SRP
	// exchange.
	DSAPPSRPActivate = define(Row{operation: "dsappSRPActivate", scenario: provisioningScenario},
		[]boundField[DSAPPSRPActivateRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "registrationID"}, func(q *DSAPPSRPActivateRequest) string { return string(q.RegistrationID) }},
			{field{name: "credential/response", optional: true}, func(q *DSAPPSRPActivateRequest) string { return string(q.Response) }},
			{field{name: "credential/derivationCode", optional: true}, func(q *DSAPPSRPActivateRequest) string { return string(q.DerivationCode) }},
		},
		activated("user/userID", "user/domain", "serialNumber"))

	// UpdateDevicePNID registers the push notification ID of a device.
	UpdateDevicePNID = define(
		Row{operation: "updateDevicePNID", scenario: notificationScenario, Retry: RetryOnce},
		[]boundField[UpdateDevicePNIDRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "user/userID"}, func(q *UpdateDevicePNIDRequest) string { return string(q.UserID) }},
			{field{name: "user/domain", optional: true}, func(q *UpdateDevicePNIDRequest) string { return string(q.Domain) }},
			{field{name: "serialNumber"}, func(q *UpdateDevicePNIDRequest) string { return string(q.SerialNumber) }},
			{field{name: "devicePNID"}, func(q *UpdateDevicePNIDRequest) string { return string(q.DevicePNID) }},
		},
		[]boundOutput[Done]{})

	// AuthUser verifies a password or completes a pending login. While it verifies a
	// password, the server may send a push message and wait for the user. An answer that
	// reports success but contains a status message is a refused login.
	AuthUser = define(
		Row{
			operation: "authUser", scenario: authenticationScenario,
			attributeSet: "credentialAttributeSet", prefix: "CREDFLD_", refusalOutput: "STATUS_MESSAGE",
			MayAwaitUser: true, approved: func(request any) bool { return request.(*AuthUserRequest).ChallengeKey != "" },
			begins: true,
		},
		[]boundField[AuthUserRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "USERID"}, func(q *AuthUserRequest) string { return string(q.UserID) }},
			{field{name: "DOMAIN", optional: true}, func(q *AuthUserRequest) string { return string(q.Domain) }},
			{field{name: "CHALLENGE_KEY", optional: true}, func(q *AuthUserRequest) string { return string(q.ChallengeKey) }},
			// 0 says that PASSWORD is one plain text.
			{field{name: "PASSWORD_FORMAT", xsiType: xsdUnsignedInt, constant: "0"}, nil},
			{field{name: "PASSWORD"}, func(q *AuthUserRequest) string { return q.Password }},
		},
		authenticated)

	// AuthSignature completes a pending signature.
	AuthSignature = define(
		Row{
			operation: "authSignature", scenario: signatureScenario,
			attributeSet: "attributeSet", prefix: "SIGNFLD_", dataFields: true,
		},
		[]boundField[AuthSignatureRequest]{
			{field{name: "COMPONENT_TYPE"}, nil},
			{field{name: "USERID"}, func(q *AuthSignatureRequest) string { return string(q.UserID) }},
			{field{name: "DOMAIN", optional: true}, func(q *AuthSignatureRequest) string { return string(q.Domain) }},
			{field{name: "REQUEST_KEY"}, func(q *AuthSignatureRequest) string { return string(q.RequestKey) }},
			{field{name: "SIGNATURE"}, func(q *AuthSignatureRequest) string { return string(q.Signature) }},
		},
		authenticated)

	// GetPreparedSecureChallenge retrieves a pending login.
	GetPreparedSecureChallenge = retrieval("getPreparedSecureChallenge", "challengeKey", authenticationScenario)
	// GetPreparedSignatureRequest retrieves a pending signature.
	GetPreparedSignatureRequest = retrieval("getPreparedSignatureRequest", "requestKey", signatureScenario)
	// CancelAuthUser rejects a pending login.
	CancelAuthUser = cancellation("cancelAuthUser", "challengeKeyMessage", authenticationScenario)
	// CancelAuthSignatureRequest rejects a pending signature.
	CancelAuthSignatureRequest = cancellation("cancelAuthSignatureRequest", "requestKeyMessage", signatureScenario)
)

// provisioning returns the row of a subcommand of provisioningExecute.
func provisioning(cmd string) Row {
	return Row{operation: "provisioningExecute", cmd: cmd, scenario: provisioningScenario, attributeSet: "attributeSet", prefix: "PROVFLD_"}
}

// registration returns a row with the property of a command that begins an activation.
func registration(r Row) Row {
	r.begins = true
	return r
}

func retrieval(operation, key string, s scenario) Command[RetrieveRequest, Retrieved] {
	return define(
		Row{operation: operation, scenario: s, Retry: RetryFault, AskNextOn: []string{statusNotFound}},
		[]boundField[RetrieveRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "serialNumber"}, func(q *RetrieveRequest) string { return string(q.SerialNumber) }},
			{field{name: key}, func(q *RetrieveRequest) string { return string(q.Key) }},
		},
		[]boundOutput[Retrieved]{{
			output{name: "requestMessage", required: true, characters: hexDigits, longest: maxRequestMessage},
			func(a *Retrieved) *string { return &a.RequestMessage },
		}})
}

func cancellation(operation, key string, s scenario) Command[CancelRequest, Done] {
	return define(
		Row{operation: operation, scenario: s, Retry: RetryFault, AskNextOn: []string{statusNotFound, statusNoSupport}},
		[]boundField[CancelRequest]{
			{field{name: "componentType"}, nil},
			{field{name: "serialNumber"}, func(q *CancelRequest) string { return string(q.SerialNumber) }},
			{field{name: key}, func(q *CancelRequest) string { return string(q.KeyMessage) }},
		},
		[]boundOutput[Done]{})
}

// activated returns the outputs of a command that confirms an activation.
func activated(userID, domain, serialNumber string) []boundOutput[Activated] {
	return []boundOutput[Activated]{
		{output{name: userID}, func(a *Activated) *string { return &a.UserID }},
		{output{name: domain}, func(a *Activated) *string { return &a.Domain }},
		{output{name: serialNumber}, func(a *Activated) *string { return &a.SerialNumber }},
	}
}

var authenticated = []boundOutput[Authenticated]{
	{output{name: "USERID"}, func(a *Authenticated) *string { return &a.UserID }},
	{output{name: "DOMAIN"}, func(a *Authenticated) *string { return &a.Domain }},
	{output{name: "ORGANIZATIONAL_UNIT"}, func(a *Authenticated) *string { return &a.OrgUnit }},
	{output{name: "SERIAL_NO"}, func(a *Authenticated) *string { return &a.SerialNumber }},
}
