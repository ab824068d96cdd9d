package soap

import "fmt"

// ResultCodes are the four codes with which the authentication server reports the outcome of
// every command: a return code and a status code, each as a name and as a number. The
// numbers are relayed as they were received, as the vendor does not publish all of them.
type ResultCodes struct {
	ReturnCodeEnum string
	StatusCodeEnum string
	ReturnCode     int
	StatusCode     int
}

// FailureCodes returns the codes of a command that failed with a status.
func FailureCodes(statusCodeEnum string, statusCode int) ResultCodes {
	return ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: statusCodeEnum, ReturnCode: -1, StatusCode: statusCode}
}

// Success reports whether the command succeeded, that is, whether the return code is 0.
// Decode makes sure that the other codes agree.
func (c ResultCodes) Success() bool { return c.ReturnCode == 0 }

// agree reports whether all codes mean success or all mean failure. An unknown code means
// failure. Whether the codes mean the same failure is not checked, as the vendor does not
// publish all numbers.
func (c ResultCodes) agree() bool {
	success := c.Success()
	return success == (c.ReturnCodeEnum == "RET_SUCCESS") &&
		success == (c.StatusCodeEnum == "STAT_SUCCESS") &&
		success == (c.StatusCode == 0)
}

// BackendFault reports whether the codes say that the instance is broken (database
// connection, memory, licence, operating system) and not that it refused the command.
func (c ResultCodes) BackendFault() bool {
	switch c.StatusCodeEnum {
	case "STAT_COMMS", "STAT_MEMORY", "STAT_OS_FAILURE", "STAT_LICENCE":
		return !c.Success()
	}
	return false
}

// StackEntry is one entry of the error stack. Its text can reveal internals of the server. It
// may be logged, but must not be sent to a client.
type StackEntry struct {
	Code        int
	Description string
}

// Fault is a SOAP Fault, of either SOAP version.
type Fault struct {
	// Code is the local part of the fault code, such as "Client" or "Receiver".
	Code string
	// String is the server's explanation. It may be logged, but must not be sent to a
	// client. Where the server repeated values of the request, they are replaced by "[…]".
	String string
	// Sender says that the code blames the request, so that every instance would refuse
	// it.
	Sender bool
}

// Error returns the code without the explanation.
func (f *Fault) Error() string { return fmt.Sprintf("SOAP Fault %q", f.Code) }
