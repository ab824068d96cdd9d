// Package srp implements the Secure Remote Password protocol, version 6a, for
// both sides of an online activation. The server keeps a verifier instead of
// the activation password; after one exchange both sides hold a 32-byte key K
// and have proved it to each other, the client first. A [Profile] is an
// activation.Profile; [Client] is the other side.
//
// # Profile
//
// Everything that the two sides must agree on has one name, a [Profile]:
// rfc5054-2048-sha256 (the default), rfc5054-3072-sha256 and
// rfc5054-4096-sha256. With | for concatenation, H for SHA-256 and PAD for the
// big-endian bytes of a number, zero-extended to the length of N:
//
//	k  = H(N | PAD(g))
//	x  = H(s | H(I | ":" | P))
//	v  = g^x
//	A  = g^a
//	B  = k*v + g^b
//	u  = H(PAD(A) | PAD(B))
//	S  = (B - k*g^x)^(a + u*x) = (A * v^u)^b
//	K  = H(PAD(S))
//	M1 = H((H(N) xor H(g)) | H(I) | s | PAD(A) | PAD(B) | K)
//	M2 = H(PAD(A) | M1 | K)
//
// all modulo N. In H(g), g is the single byte 2 (2048 bits) or 5 (3072 and 4096
// bits). The salt s is hashed as 16 raw bytes, identity I and password P as the
// ASCII bytes they are given as. a and b are 256 random bits. A [Session] seals
// activation data under keys that it derives from K.
//
// # Origin of the choices
//
// Standard: the groups, k, u, B, S and the padding (RFC 5054, sections 2.1, 2.5
// and 2.6, appendix A), x (section 2.4), and the order of proofs with the form
// of M1 and M2 (RFC 2945, section 3).
//
// This project's own: SHA-256 where both documents say SHA-1; one hash of S for
// K instead of the interleaved one of RFC 2945; padding of A, B and S inside
// M1, M2 and K; the sizes of salt and private values; the texts that the simulated
// salt and verifier are derived from; and that A is taken only as 1 < A < N-1,
// without reduction.
//
// The vendor publishes none of these choices for its own activation protocol,
// so no interoperability with the vendor's SDK is claimed.
//
// # Arithmetic
//
// Each group is computed with by the fastest kernel that the machine can run and that
// passes a test, once in a process: known answers, and a comparison with
// [filippo.io/bigmod]. ifma needs a processor with AVX-512 IFMA, adx
// one with MULX and ADX, radix64 serves the larger groups everywhere else, and portable,
// which is bigmod with a table, is left. [Profile.Kernel] tells which one it is,
// [Profile.Prepare] logs which ones have failed. All give the same results.
//
// # Secrets
//
// x, v, a, b, S, K and everything computed from them touch only arithmetic whose
// time and memory accesses do not depend on their values; tables of powers are read in
// full. Evidence is compared in constant time. The memory that a call computes in is
// overwritten when it ends, hash states included; copies on the stack, inside bigmod
// and of Go strings cannot be. No error carries a value.
package srp
