//go:build !purego

package srp

import "golang.org/x/sys/cpu"

//go:generate go -C _asm/adx run main.go -out ../../adx_amd64.s -stubs ../../adx_stubs_amd64.go -pkg srp

// adxBlock is the number of words that the assembly processes at a time. Numbers have at
// least two such blocks.
const adxBlock = 8

// supportsADX reports whether the processor has MULX, which does not change the carry flag,
// and ADCX and ADOX, which add with a carry flag each of their own, and whether numbers of
// that many bits consist of whole blocks.
func supportsADX(size int) bool {
	return cpu.X86.HasBMI2 && cpu.X86.HasADX && size >= 2*64*adxBlock && size%(64*adxBlock) == 0
}

// newADX returns the kernel adx: radix64 with products in assembly.
func newADX(prime []byte, generator byte) kernel {
	if !supportsADX(8 * len(prime)) {
		panic("srp: prime of a size that the assembly does not support")
	}
	n := wordsOf(prime)
	return newRadix64With(n, generator, &adxWords{prime: n, inverse: minusInverse(n[0])})
}

// adxWords implements wordOps in assembly.
type adxWords struct {
	prime   []uint
	inverse uint // -1/N modulo 2^64
}

func (w *adxWords) multiply(z, x, y, scratch []uint) {
	n := len(w.prime)
	z, x, y, scratch = z[:n], x[:n], y[:n], scratch[:2*n]
	adxMultiply(&z[0], &x[0], &y[0], &w.prime[0], &scratch[0], w.inverse, n/adxBlock)
}

func (w *adxWords) square(z, x, scratch []uint) {
	n := len(w.prime)
	z, x, scratch = z[:n], x[:n], scratch[:2*n]
	adxSquare(&z[0], &x[0], &w.prime[0], &scratch[0], w.inverse, n/adxBlock)
}

func (w *adxWords) read(z []uint, from window, j uint) {
	n := len(w.prime)
	z, from = z[:n], from[:n]
	adxRead(&z[0], &from[0][0], n, j)
}

var _ wordOps = (*adxWords)(nil)
