//go:build !amd64 || purego

package srp

// implementations are the kernels that this machine may have, the fastest first.
// The portable one serves where none of them does.
var implementations = []implementation{
	{"radix64", supportsRadix64, newRadix64},
}
