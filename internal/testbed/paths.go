//go:build linux

package testbed

// Paths of services.
const (
	RegisterPath       = "/rest/v2/provisioning/DSAPPSRPRegister"
	OfflinePath        = "/rest/v2/provisioning/MdlRegister"
	EphemeralKeyPath   = "/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey"
	ActivationDataPath = "/rest/v2/provisioning/DSAPPSRPGenerateActivationData"
	AddDevicePath      = "/rest/v2/provisioning/MdlAddDevice"
	ActivatePath       = "/rest/v2/provisioning/MdlActivate"
	ServerTimePath     = "/rest/v2/provisioning/getServerTime"
	LoginPath          = "/rest/v2/authentication/authUser"
	NotificationPath   = "/rest/v2/notification/push/updateNotificationID"
)

// Bodies that these services accept.
const (
	RegisterBody = `{"userID":"` + UserID + `","domain":"` + Domain + `","staticPassword":"` + StaticPassword + `"}`
	// LoginBody has a wrong one-time password.
	LoginBody = `{"userID":"` + UserID + `","domain":"` + Domain + `","password":"123456"}`
	// EphemeralKeyBody and ActivationDataBody are about a registration that nobody made.
	EphemeralKeyBody   = `{"registrationIdentifier":"Unknown1","clientEphemeralPublicKey":"05"}`
	ActivationDataBody = `{"registrationIdentifier":"Unknown1","clientEvidenceMessage":"0000000000000000000000000000000000000000000000000000000000000000"}`
	// RetrieveBody is about a login that nobody requested.
	RetrieveBody = `{"serialNumber":"VDS1234567-1","challengeKey":"none"}`
)

// Answers without a result.
const (
	Success = `{"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0}}`
	// Refused is the one answer to a proof that does not count, whatever the reason.
	Refused = `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_INVCREDENTIALS","returnCode":-1,"statusCode":1000}}`
	// NotFound is the answer about a request that does not exist for the caller.
	NotFound = `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_NOT_FOUND","returnCode":-1,"statusCode":-13}}`
	// NoSupport is the answer to the cancel of a request that somebody else retrieved.
	NoSupport = `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_NOSUPPORT","returnCode":-1,"statusCode":-1}}`
)
