// Package sandbox simulates the two neighbours of the gateway, for development
// and tests only: an authentication server ([Server]) and a phone ([Phone]).
// Nothing in it may guard real users.
//
// The simulated authentication server speaks SOAP 1.1 and 1.2 and is strict
// with its callers, so that a client which it accepts keeps to the published
// rules of the interface. Where the rules are not public (several status
// numbers, the status for a component type without a record, attribute names)
// it makes a choice of its own and says so where the choice is made.
//
// The device algorithm ([Device]: activation messages, device code,
// confirmation signature) is this sandbox's own. It has the sizes and the
// alphabets of the real values and nothing else in common with the vendor's
// algorithm: no real device understands it, and it protects nothing.
package sandbox
