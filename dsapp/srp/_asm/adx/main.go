// Command adx generates the assembly of the kernel for processors with MULX, ADCX and ADOX.
// Run it by go generate in the directory of package srp.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Numbers consist of blocks of eight words. The registers hold eight words of the result,
// the window. A row adds to the window the product of one word and a block, and moves the
// window up by one word. The product of one word and eight is a sequence of MULX with two
// independent carry chains: ADCX adds the lower halves, ADOX the upper ones.
const (
	block = 8
	bytes = 8 * block
)

// The registers. All general ones but the stack pointer are in use.
var (
	window = []GPPhysical{R8, R9, R10, R11, R12, R13, R14, R15}
	spare  = RBX // word above the window
	low    = RAX
	high   = RCX
	word   = RDX // implicit factor of MULX
	from   = RSI // address of the block to be multiplied
	to     = RDI // address of the words of the result that the window is for
	by     = RBP // address of the words to multiply by
)

// frame has the variables on the stack.
type frame struct {
	zero  Mem // 0
	carry Mem // all ones if the words below the window have a carry for it
	top   Mem // all ones if the reduction has a carry above the number
	end   Mem // address of the end of the number that from goes through
	turns Mem // number of blocks that are left
	base  Mem // address of the result for the current block
}

func newFrame() frame {
	m := AllocLocal(48)
	return frame{m, m.Offset(8), m.Offset(16), m.Offset(24), m.Offset(32), m.Offset(40)}
}

func at(base Register, i int) Mem { return Mem{Base: base, Disp: 8 * i} }

func param(name string) Mem {
	b, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

func main() {
	ConstraintExpr("!purego")
	multiply()
	square()
	read()
	Generate()
}

func multiply() {
	TEXT("adxMultiply", NOSPLIT, "func(z, x, y, prime, scratch *uint, inverse uint, blocks int)")
	Pragma("noescape")
	Doc("adxMultiply sets z to x*y/R modulo the prime. The numbers have blocks of eight words,",
		"at least two, and scratch has twice as many. inverse is -1/prime modulo 2^64.")
	f := newFrame()
	start(f)

	Comment("Each turn adds x times one block of y.")
	MOVQ(param("y"), by)
	MOVQ(param("scratch"), to)
	Label("outer")
	MOVQ(to, f.base)
	MOVQ(param("x"), from)
	for _, r := range window {
		XORL(r.As32(), r.As32())
	}
	MOVQ(f.zero, low)
	MOVQ(low, f.carry)
	Label("inner")
	blockRows(f)
	CMPQ(from, f.end)
	JNE(LabelRef("inner"))
	finish(f)
	ADDQ(U8(bytes), by)
	MOVQ(f.base, to)
	ADDQ(U8(bytes), to)
	DECQ(f.turns)
	JNE(LabelRef("outer"))

	reduce(f)
	RET()
}

func square() {
	TEXT("adxSquare", NOSPLIT, "func(z, x, prime, scratch *uint, inverse uint, blocks int)")
	Pragma("noescape")
	Doc("adxSquare sets z to x*x/R modulo the prime, as adxMultiply does.")
	f := newFrame()
	start(f)

	Comment("Each turn adds the products of one block of x and all words above.")
	MOVQ(param("x"), from)
	MOVQ(param("scratch"), to)
	Label("outer")
	MOVQ(to, f.base)
	MOVQ(from, by)
	triangle(f)
	ADDQ(U8(bytes), from)
	ADDQ(U8(bytes), to)
	MOVQ(f.zero, low)
	MOVQ(low, f.carry)
	CMPQ(from, f.end)
	JEQ(LabelRef("last"))
	Label("inner")
	blockRows(f)
	CMPQ(from, f.end)
	JNE(LabelRef("inner"))
	Label("last")
	finish(f)
	MOVQ(by, from)
	ADDQ(U8(bytes), from)
	MOVQ(f.base, to)
	ADDQ(I32(2*bytes), to)
	DECQ(f.turns)
	JNE(LabelRef("outer"))

	double(f)
	reduce(f)
	RET()
}

// double doubles the sum with ADCX and adds the squares of the words with ADOX.
func double(f frame) {
	MOVQ(param("x"), from)
	MOVQ(param("scratch"), to)
	MOVQ(param("blocks"), by)
	MOVQ(f.zero, R14)
	MOVQ(f.zero, R15)
	MOVQ(I32(-1), spare)
	Label("double")
	// R14 and R15 are 1 if the chains have a carry from the block before. Adding all
	// ones sets the carry flags then.
	XORL(low.As32(), low.As32())
	ADCXQ(spare, R14)
	ADOXQ(spare, R15)
	for i := range block {
		r := window[i%2*2:]
		MOVQ(at(from, i), word)
		MULXQ(word, low, high)
		MOVQ(at(to, 2*i), r[0])
		MOVQ(at(to, 2*i+1), r[1])
		ADCXQ(r[0], r[0])
		ADOXQ(low, r[0])
		ADCXQ(r[1], r[1])
		ADOXQ(high, r[1])
		MOVQ(r[0], at(to, 2*i))
		MOVQ(r[1], at(to, 2*i+1))
	}
	MOVQ(f.zero, R14)
	MOVQ(f.zero, R15)
	ADCXQ(f.zero, R14)
	ADOXQ(f.zero, R15)
	ADDQ(U8(bytes), from)
	ADDQ(I32(2*bytes), to)
	DECQ(by)
	JNE(LabelRef("double"))
}

// start clears the lower half of scratch, initialises the frame, and sets end to the end of
// the first operand.
func start(f frame) {
	XORL(low.As32(), low.As32())
	MOVQ(low, f.zero)
	MOVQ(param("x"), from)
	MOVQ(param("blocks"), word)
	MOVQ(word, f.turns)
	MOVQ(param("scratch"), to)
	PXOR(X0, X0)
	Label("clear")
	for i := 0; i < block; i += 2 {
		MOVOU(X0, at(to, i))
	}
	ADDQ(U8(bytes), from)
	ADDQ(U8(bytes), to)
	DECQ(word)
	JNE(LabelRef("clear"))
	MOVQ(from, f.end)
}

// row adds word times the eight words at from to the window w[:8]. The spare register w[8]
// becomes its top word; w[0] is final.
func row(f frame, w []GPPhysical) {
	// This also clears both carry flags.
	XORL(w[block].As32(), w[block].As32())
	for j := range block {
		MULXQ(at(from, j), low, high)
		ADOXQ(high, w[j+1])
		ADCXQ(low, w[j])
	}
	ADCXQ(f.zero, w[block])
}

// rotated returns the registers of the window i words up, and the spare register above.
func rotated(i int) []GPPhysical {
	all := append(append([]GPPhysical{}, window...), spare)
	return append(append([]GPPhysical{}, all[i:]...), all[:i]...)
}

// settle moves the window back to its first registers after eight rows.
func settle() {
	now := rotated(block)
	for i := block - 1; i >= 0; i-- {
		MOVQ(now[i], window[i])
	}
}

// restore sets the carry flag from a variable.
func restore(m Mem) {
	MOVQ(m, low)
	ADDQ(low, low)
}

// keep stores the carry flag in a variable.
func keep(m Mem) {
	SBBQ(low, low)
	MOVQ(low, m)
}

// blockRows adds to the window the words of the result at to, and the block at from times
// eight words at by. It stores the lower eight words, which are final. The carry of the
// first sum belongs to the window after the rows; the next sum begins with it.
func blockRows(f frame) {
	restore(f.carry)
	for i, r := range window {
		ADCQ(at(to, i), r)
	}
	keep(f.carry)
	for i := range block {
		w := rotated(i)
		MOVQ(at(by, i), word)
		row(f, w)
		MOVQ(w[0], at(to, i))
	}
	settle()
	ADDQ(U8(bytes), from)
	ADDQ(U8(bytes), to)
}

// finish adds the carry to the window and stores it as the highest block of a sum.
func finish(f frame) {
	restore(f.carry)
	for i, r := range window {
		ADCQ(U8(0), r)
		MOVQ(r, at(to, i))
	}
}

// triangle adds the products of all pairs of different words of the block at from to
// sixteen words of the result. The upper eight of them become the window.
func triangle(f frame) {
	r := func(i int) GPPhysical { return window[i%block] }
	for i := 1; i < block; i++ {
		MOVQ(at(to, i), r(i))
	}
	stored := 1
	for i := range block - 1 {
		// Row i needs the new word i+8.
		MOVQ(at(from, i), word)
		XORL(r(i+block).As32(), r(i+block).As32())
		for j := i + 1; j < block; j++ {
			MULXQ(at(from, j), low, high)
			ADCXQ(low, r(i+j))
			ADOXQ(high, r(i+j+1))
		}
		ADCXQ(f.zero, r(i+block))
		// The next row begins two words higher.
		for ; stored < min(2*i+3, block); stored++ {
			MOVQ(r(stored), at(to, stored))
		}
	}
	XORL(r(2*block-1).As32(), r(2*block-1).As32())
}

// reduce sets z to the number in scratch divided by R, modulo the prime. Each turn adds a
// multiple of the prime that makes one more block zero, and stores the factors there. The
// result is below R+N. If it has a carry, subtracting N makes it less than R.
func reduce(f frame) {
	MOVQ(f.zero, low)
	MOVQ(low, f.top)
	MOVQ(param("blocks"), low)
	MOVQ(low, f.turns)
	SHLQ(U8(6), low)
	ADDQ(param("prime"), low)
	MOVQ(low, f.end)
	MOVQ(param("scratch"), to)

	Label("reduce")
	MOVQ(to, f.base)
	MOVQ(to, by)
	MOVQ(param("prime"), from)
	for i, r := range window {
		MOVQ(at(to, i), r)
	}
	for i := range block {
		w := rotated(i)
		MOVQ(w[0], word)
		IMULQ(param("inverse"), word)
		MOVQ(word, at(to, i))
		row(f, w)
	}
	settle()
	ADDQ(U8(bytes), from)
	ADDQ(U8(bytes), to)
	MOVQ(f.zero, low)
	MOVQ(low, f.carry)
	Label("reduce_inner")
	blockRows(f)
	CMPQ(from, f.end)
	JNE(LabelRef("reduce_inner"))
	// This sum cannot overflow: a block times the prime, plus the words so far, fits.
	// Adding the words above can.
	restore(f.carry)
	for _, r := range window {
		ADCQ(U8(0), r)
	}
	restore(f.top)
	for i, r := range window {
		ADCQ(at(to, i), r)
		MOVQ(r, at(to, i))
	}
	keep(f.top)
	MOVQ(f.base, to)
	ADDQ(U8(bytes), to)
	DECQ(f.turns)
	JNE(LabelRef("reduce"))

	MOVQ(f.top, spare)
	MOVQ(f.zero, low)
	MOVQ(low, f.carry)
	MOVQ(param("prime"), from)
	MOVQ(param("z"), by)
	Label("subtract")
	for i, r := range window {
		MOVQ(at(from, i), r)
		ANDQ(spare, r)
	}
	restore(f.carry)
	for i, r := range window {
		MOVQ(at(to, i), low)
		SBBQ(r, low)
		MOVQ(low, at(by, i))
	}
	keep(f.carry)
	ADDQ(U8(bytes), from)
	ADDQ(U8(bytes), to)
	ADDQ(U8(bytes), by)
	CMPQ(from, f.end)
	JNE(LabelRef("subtract"))
}

// read copies one of sixteen entries, whose words of equal significance are next to each
// other. It loads all of them and selects one by masks.
func read() {
	TEXT("adxRead", NOSPLIT, "func(z, window *uint, words int, j uint)")
	Pragma("noescape")
	Doc("adxRead sets z to entry j of a window, for an even number of words. It loads all",
		"entries.")
	MOVQ(param("z"), RDI)
	MOVQ(param("window"), RSI)
	MOVQ(param("words"), RCX)
	Comment("X0 to X7 become all ones in the half for entry j.")
	masks := []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7}
	MOVQ(param("j"), RAX)
	MOVQ(RAX, X8)
	PSHUFD(U8(0), X8, X8)
	MOVL(U32(1), EAX)
	MOVQ(RAX, X0)
	PSHUFD(U8(0x05), X0, X0) // 1 and 1 in the upper half, 0 and 0 in the lower
	MOVL(U32(2), EAX)
	MOVQ(RAX, X9)
	PSHUFD(U8(0), X9, X9)
	for i := 1; i < len(masks); i++ {
		MOVOA(masks[i-1], masks[i])
		PADDL(X9, masks[i])
	}
	for _, m := range masks {
		PCMPEQL(X8, m)
	}
	Label("word")
	for half, sum := range []VecPhysical{X8, X10} {
		for i, m := range masks {
			r := sum
			if i > 0 {
				r = []VecPhysical{X12, X13}[i%2]
			}
			MOVOU(at(RSI, 16*half+2*i), r)
			PAND(m, r)
			if i > 0 {
				POR(r, sum)
			}
		}
	}
	Comment("Fold the halves of two words into one register.")
	MOVOA(X8, X9)
	PUNPCKLQDQ(X10, X8)
	PUNPCKHQDQ(X10, X9)
	POR(X9, X8)
	MOVOU(X8, at(RDI, 0))
	ADDQ(I32(256), RSI)
	ADDQ(U8(16), RDI)
	SUBQ(U8(2), RCX)
	JNE(LabelRef("word"))
	Comment("Clear what depends on secrets: Go may not use these registers for long.")
	for _, r := range append(masks, X8, X9, X10, X12, X13) {
		PXOR(r, r)
	}
	RET()
}
