//go:build !amd64 || purego

package srp

// implementations lists the kernels of this build, the fastest first. The portable kernel
// is used if none of them supports the processor.
var implementations = []implementation{
	{"radix64", supportsRadix64, newRadix64},
}
