// Package srp implements the Secure Remote Password protocol, version 6a, for
// both sides of an online activation. The server stores a verifier instead of
// the activation password. After one exchange both sides have a key K
// and have proved it to each other, the client first. [Profile] has the server's
// side and is an activation.Profile; [Client] is the phone's side.
//
// # Profile
//
// A [Profile] is everything that the two sides must agree on, under one name. Those of
// [Profiles] are rfc5054-2048-sha256 (the default), rfc5054-3072-sha256 and
// rfc5054-4096-sha256; [New] makes others of the variants of package variant, for phones
// with another SRP library. The formulas of the former, with | for concatenation, H for
// SHA-256 and PAD for the big-endian bytes of a number, zero-extended to the length of N:
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
// are all modulo N. In H(g), g is the single byte 2 (2048 bits) or 5 (3072 and 4096
// bits). The salt s is hashed as 16 raw bytes, identity I and password P as
// ASCII bytes. a and b are 256 random bits. A [Session] encrypts activation data
// with keys that it derives from K.
//
// # Origin of the choices
//
// Standard: the groups, k, u, B, S and the padding (RFC 5054, sections 2.1, 2.5
// and 2.6, appendix A), x (section 2.4), and the order of proofs with the form
// of M1 and M2 (RFC 2945, section 3).
//
// This project's own: SHA-256 where both documents say SHA-1; one hash of S for
// K instead of the interleaved one of RFC 2945; padding of A, B and S inside
// M1, M2 and K; the sizes of salt and private values; the texts that the salt and
// the simulated verifier are derived from; and the refusal of A unless 1 < A < N-1.
//
// The vendor publishes none of these choices for its own activation protocol,
// so no interoperability with the vendor's SDK is claimed.
//
// # Files
//
//   - profile.go: profiles and groups
//   - protocol.go: what all variants have in common
//   - formulas.go: the templates in which they differ
//   - server.go, client.go, session.go, errors.go: the two sides and their session
//   - numbers.go: numbers from and to hexadecimal digits
//   - workspace.go: the memory that a call computes in
//   - kernel.go: the interface of the arithmetic, and the selection of a kernel
//   - selftest.go: the test that a kernel must pass before it is used
//   - portable.go, radix64.go, adx_amd64.go, ifma_amd64.go: the kernels
//   - window.go: digits of exponents, and tables of powers
//
// # Kernels
//
// A kernel is an implementation of the arithmetic modulo the prime of a group. For each
// group a process selects the fastest kernel that the processor supports and that passes
// the self-test: known answers, and a comparison with [filippo.io/bigmod]. The portable
// kernel, which is bigmod with a table of powers, is the last resort and has no self-test.
// All kernels give the same results. [Profile.Kernel] returns the name of the selected one;
// [Profile.Prepare] logs the names of those that failed.
//
// To add a kernel named x for one processor architecture:
//
//  1. Implement kernel and calculator in x_ARCH.go.
//  2. If it has assembly, generate x_ARCH.s and x_stubs_ARCH.go by a program in
//     _asm/x, with a go:generate line in x_ARCH.go.
//  3. Add it to the variable implementations in implementations_ARCH.go. If it is the first
//     kernel of its architecture, make that file and exclude the architecture from
//     implementations_portable.go.
//
// The tests of kernels, and the benchmarks, then include it: they go through
// implementations. TestAssembly and the regular expression assemblyProducts need the names
// of its routines.
//
// # Secrets
//
// x, v, a, b, S, K and everything computed from them are only used in arithmetic whose
// time and memory accesses do not depend on their values; tables of powers are read in
// full. The one exception is a variant that hashes S, or a hash, without leading zeros: the
// length of what is hashed depends on their number. Evidence is compared in constant time. The memory that a call computes in is
// overwritten when it ends, including the state of hashes. Copies on the stack, inside
// bigmod and in Go strings cannot be overwritten. No error contains a value.
package srp
