// Package sandbox simulates the neighbours of the gateway, for development and
// tests only: an authentication server ([Server]), a phone ([Phone]) and the
// application server that asks for logins and signatures ([ApplicationServer]). Nothing
// in it may guard real users.
//
// The simulated authentication server speaks SOAP 1.1 and 1.2 and is strict
// with its callers, so that a client which it accepts keeps to the published
// rules of the interface. Where the rules are not public (several status
// numbers, the status for a component type without a record, attribute names,
// the end of a call that waited for a device in vain) it makes a choice of its own
// and says so where the choice is made.
//
// The device algorithm ([Device], [Authenticator]: activation messages, device
// code, secure-channel messages, signatures, one-time passwords) is this
// sandbox's own. It has the sizes and the alphabets of the real values and
// nothing else in common with the vendor's algorithm: no real device understands
// it, and it protects nothing.
package sandbox
