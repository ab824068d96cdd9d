// Package solve finds the variant of SRP-6a that explains a recorded exchange: the options of
// package variant with which a gateway would have computed the same values.
//
// A [Capture] is what a debug build of a phone and its log say of one exchange of a test user.
// [Solve] goes through the choices of variant.Dimensions in stages, each with the values that
// the stages before it have settled:
//
//	group                                   A = g^a
//	hash, k, x with inner, u, session key   S, K or M1, whichever was recorded
//	m1                                      M1
//	m2                                      M2
//	key derivation                          the MAC or the plaintext of an item
//	counter                                 the plaintext of an item
//	mac                                     the MAC of an item
//
// Choices that give the same bytes in a capture cannot be told apart by it. A [Report] names
// them, and says how likely another capture tells them apart.
//
// [Compare] computes a capture with a given variant, and [Try] has the gateway's own code carry
// out an exchange with the formulas of this package. A [Server] records exchanges.
//
// The package computes with math/big, whose time depends on the values. It is for recorded
// exchanges of test users, never for those of others.
package solve
