// Package sandbox simulates the systems around the gateway, for development and tests
// only: an authentication server ([Server]), a phone ([Phone]) and the application server
// that requests logins and signatures ([ApplicationServer]). Do not use it to protect real
// users.
//
// The simulated authentication server speaks SOAP 1.1 and 1.2. It refuses requests that
// break the published rules of the interface, so that tests find such requests. Where the
// rules are not public, comments say which behaviour the sandbox has chosen: several
// status numbers, the status for an unknown component type, names of attributes, and how
// a call ends that waited for a device in vain.
//
// The device algorithm ([Device], [Authenticator]: activation messages, device code,
// secure-channel messages, signatures, one-time passwords) is not the vendor's. Its values
// have the sizes and alphabets of the real ones, but real devices do not understand them,
// and they protect nothing.
package sandbox
