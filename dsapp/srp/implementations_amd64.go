//go:build !purego

package srp

// implementations lists the kernels of this build, the fastest first. The portable kernel
// is used if none of them supports the processor.
var implementations = []implementation{
	{"ifma", supportsIFMA, newIFMA},
	{"adx", supportsADX, newADX},
	{"radix64", supportsRadix64, newRadix64},
}
