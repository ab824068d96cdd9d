package soap

import "fmt"

// ResultCodes is the outcome every command of the authentication server
// reports. The numbers are relayed as they came: not every one is public.
type ResultCodes struct {
	ReturnCodeEnum string
	StatusCodeEnum string
	ReturnCode     int
	StatusCode     int
}

// FailureCodes are the codes of a command that failed for the reason that the
// status tells.
func FailureCodes(statusCodeEnum string, statusCode int) ResultCodes {
	return ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: statusCodeEnum, ReturnCode: -1, StatusCode: statusCode}
}

// Success reports whether the command succeeded. Every return code but 0 is a
// failure; in an answer that is taken the other codes say the same.
func (c ResultCodes) Success() bool { return c.ReturnCode == 0 }

// agree reports whether the codes are either all those of a success or all others.
// A code that is not known is no success. Which failure they mean is not compared:
// not every number is public.
func (c ResultCodes) agree() bool {
	success := c.Success()
	return success == (c.ReturnCodeEnum == "RET_SUCCESS") &&
		success == (c.StatusCodeEnum == "STAT_SUCCESS") &&
		success == (c.StatusCode == 0)
}

// BackendFault reports whether the codes say that the instance itself is not
// working (lost database, no memory, licence, operating system), rather than
// that the command was wrong.
func (c ResultCodes) BackendFault() bool {
	switch c.StatusCodeEnum {
	case "STAT_COMMS", "STAT_MEMORY", "STAT_OS_FAILURE", "STAT_LICENCE":
		return !c.Success()
	}
	return false
}

// StackEntry is one entry of the error stack. Its text can hold internal hints
// of the server: it is for the log, never for a client.
type StackEntry struct {
	Code        int
	Description string
}

// Fault is a SOAP Fault, of either SOAP version.
type Fault struct {
	// Code is the local part of the fault code, e.g. "Client" or "Receiver".
	Code string
	// String is the server's explanation. It is for the log, never for a client.
	// Values of the command that the server repeated in it are blotted out.
	String string
	// Sender says that the server blames the command, so that it would be
	// refused by every instance.
	Sender bool
}

// Error names the code, not the explanation.
func (f *Fault) Error() string { return fmt.Sprintf("SOAP Fault %q", f.Code) }
