// Command ifma generates the assembly of the kernel for processors with AVX-512
// IFMA. Run it by go generate in the directory of the package.
package main

import (
	"fmt"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// size is one size of N.
type size struct {
	bits int
	// vectors is the number of registers that hold an element, 8 digits in each.
	vectors int
	// rows is the number of digits of the second factor of a product, a multiple of
	// four. 2^(52*rows) is more than 4N.
	rows int
	// lowOnes tells that N is -1 modulo 2^64, so that a quotient is the digit itself.
	lowOnes bool
}

// No profile has 1024 bits: the published vectors of RFC 5054 do.
var sizes = []size{
	{bits: 1024, vectors: 3, rows: 20},
	{bits: 2048, vectors: 5, rows: 40},
	{bits: 3072, vectors: 8, rows: 60, lowOnes: true},
	{bits: 4096, vectors: 10, rows: 80, lowOnes: true},
}

const (
	lanes     = 8
	digitBits = 52
	// spare is the number of bits of a word above a digit. A factor shifted left by
	// that many makes MULX put the high half of a product, in digits, into its high
	// word.
	spare = 64 - digitBits
	// scalars is the number of digits below the vectors.
	scalars = 2
)

// Words of the modulus and of the scratch, after the vectors that begin with them.
type layout struct {
	// Modulus: N from digits 2, 1 and 0 up, the last without digit 0, N from digit 1
	// up without that (one vector), digits 0 and 1, -1/N, 2^52-1.
	above2, above1, above0, without1, low, inverse, largest int
	// Scratch: the columns or near products, a register of zeros, x from digits 1 and
	// 2 up, the lowest lanes of the two accumulators.
	columns, rest, x1, x2, lowest int
}

func (s size) layout() layout {
	l := lanes * s.vectors
	return layout{
		above2: 0, above1: l, above0: 2 * l, without1: 3 * l,
		low: 3*l + lanes, inverse: 3*l + lanes + 2, largest: 3*l + lanes + 3,
		columns: 0, rest: 2 * l, x1: 2*l + lanes, x2: 3*l + lanes, lowest: 4*l + lanes,
	}
}

// Indices that put the lanes of two vectors in turns.
var interleaveLow, interleaveHigh Mem

func main() {
	ConstraintExpr("!purego")
	interleaveLow, interleaveHigh = interleave("ifmaInterleaveLow", 0), interleave("ifmaInterleaveHigh", lanes/2)
	for _, s := range sizes {
		product(s)
		square(s)
		read(s)
	}
	wipe()
	Generate()
}

var vectors = []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
	reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
	reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
	reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}

// General registers. BP and SP belong to Go.
var (
	argX, argY, argZ = reg.RAX, reg.RDI, reg.RDI
	modulus          = reg.R8
	scratch          = reg.RSI
	row              = reg.RCX
	// lowDigits hold the digits of the accumulator below the vectors.
	lowDigits = [scalars]reg.GPPhysical{reg.R9, reg.R10}
	// quotient is the register whose product MULX takes, which it does not name.
	quotient  = reg.RDX
	low       = reg.RBX
	high      = reg.RAX
	temporary = reg.R13
)

// Mask registers of squares.
var (
	masks    = []reg.OpmaskPhysical{reg.K1, reg.K2, reg.K3, reg.K4, reg.K5}
	allLanes = reg.K6
)

// word addresses a word behind a pointer.
func word(base reg.Register, n int) Mem { return Mem{Base: base, Disp: 8 * n} }

func clearVector(r reg.VecPhysical) { VPXORQ(r, r, r) }

// frame is the state of a product or square between pairs of rows.
type frame struct {
	size
	// acc are the two accumulators, which pairs of rows add to in turns: the next one
	// to the first. Its lane j is digit 2+j, and lane j of the second is digit j.
	acc        [2]accumulator
	y, q       [2]reg.VecPhysical
	zero       reg.VecPhysical
	x2, x1     []Op // x from digits 2 and 1 up
	n2, n1, n0 []Op // N from digits 2, 1 and 0 up
	digit      [scalars]reg.GPPhysical
}

// accumulator is a sum of halves of products.
type accumulator struct {
	lanes []reg.VecPhysical
	// lowest is where its lowest lanes are in the scratch.
	lowest int
}

// newFrame spreads the registers. What is read in every pair and does not fit
// into them is read from memory.
func newFrame(s size) *frame {
	at := s.layout()
	f := &frame{size: s, digit: lowDigits}
	free := vectors
	take := func(n int) (r []reg.VecPhysical) {
		r, free = free[:n], free[n:]
		return r
	}
	f.acc = [2]accumulator{{take(s.vectors), at.lowest}, {take(s.vectors), at.lowest + lanes/2}}
	f.y = [2]reg.VecPhysical(take(2))
	f.q = [2]reg.VecPhysical(take(2))
	f.zero = take(1)[0]
	operands := func(base reg.Register, first int) (ops []Op) {
		for i := range s.vectors {
			if len(free) > 0 {
				ops = append(ops, take(1)[0])
			} else {
				ops = append(ops, word(base, first+lanes*i))
			}
		}
		return ops
	}
	f.x2, f.x1 = operands(scratch, at.x2), operands(scratch, at.x1)
	f.n1, f.n2, f.n0 = operands(modulus, at.above1), operands(modulus, at.above2), operands(modulus, at.above0)
	return f
}

// start fills the registers with N and with the digits, and empties the accumulator
// that the second pair adds to.
func (f *frame) start(digits ...Op) {
	at := f.layout()
	for i := range f.vectors {
		for _, c := range []struct {
			first int
			ops   []Op
		}{{at.above1, f.n1}, {at.above2, f.n2}, {at.above0, f.n0}} {
			if r, ok := c.ops[i].(reg.VecPhysical); ok {
				VMOVDQU64(word(modulus, c.first+lanes*i), r)
			}
		}
	}
	XORL(row.As32(), row.As32())
	for i, d := range digits {
		MOVQ(d, f.digit[i])
	}
	clearVector(f.zero)
	before := f.acc[1]
	for _, r := range before.lanes {
		clearVector(r)
	}
	VMOVDQU64(before.lanes[0].AsY(), word(scratch, before.lowest))
}

// shiftDown sets to, for every vector, to from without its lowest n lanes. to may
// be from.
func shiftDown(n uint64, from []reg.VecPhysical, to []Op, zero, shifted reg.VecPhysical) {
	for i, r := range from {
		next := zero
		if i+1 < len(from) {
			next = from[i+1]
		}
		if t, ok := to[i].(reg.VecPhysical); ok {
			VALIGNQ(U8(n), r, next, t)
			continue
		}
		VALIGNQ(U8(n), r, next, shifted)
		VMOVDQU64(shifted, to[i])
	}
}

// part is what a row has of the lanes of x: those of one vector that a mask has,
// and those of the vectors above. The zero part is all of them.
type part struct {
	vector int
	mask   Op
}

// pair is what one pair of rows has of its own.
type pair struct {
	// y0 and y1 are the digits of the second factor.
	y0, y1 Op
	// more, if there are any, are added to the digits that come from the vectors.
	more []Op
	// low0, high0, low1 and high1 tell which lanes of x the halves of products have.
	low0, high0, low1, high1 part
}

// term is the addition of halves of products to all columns.
type term struct {
	add     func(...Op)
	factor  reg.VecPhysical
	columns []Op
	part    part
}

// to adds to a column, unless the row does not have it.
func (t term) to(column int, r reg.VecPhysical) {
	switch {
	case column < t.part.vector:
	case column == t.part.vector && t.part.mask != nil:
		t.add(t.columns[column], t.factor, t.part.mask, r)
	default:
		t.add(t.columns[column], t.factor, r)
	}
}

// rows generates two rows. Row i adds y_i*x to the accumulator, then the multiple
// q_i*N of N that makes its lowest digit zero, and takes that digit away. The
// accumulator is this:
//
//   - Digits 0 and 1 are in general registers, so the quotient of a row never waits
//     for a vector.
//   - The others are sums of the lanes of two accumulators, which take turns and move
//     by four lanes every other turn: each has the time of two pairs for its chain of
//     additions. The second row adds its high halves of x to the accumulator of the
//     next pair.
//   - Digits 2 and 3 become digits 0 and 1 of the next pair. What the second quotient
//     gives to digit 2, which is needed soonest, is added in a general register.
//   - What x gives to the digits in general registers does not depend on
//     quotients, and is computed before, for all rows.
//
// No carry moves between lanes. A pair adds 8 halves of products to a digit, each
// below 2^52, and a digit has been in lanes for 40 pairs at most when it comes to
// the general registers. There it gets 8 halves more and a carry of 2^9 at most.
// 336*2^52 is below 2^61.
func (f *frame) rows(p pair) {
	at := f.layout()
	d := f.digit
	this, other := f.acc[0], f.acc[1]
	VPBROADCASTQ(p.y0, f.y[0])
	VPBROADCASTQ(p.y1, f.y[1])

	Comment("First row: its quotient, and what N adds to digit 1.")
	for _, r := range f.quotient(d[0], 0) {
		ADDQ(r, d[1])
	}
	f.add(this,
		term{VPMADD52LUQ, f.y[0], f.x2, p.low0},
		term{VPMADD52HUQ, f.y[0], f.x1, p.high0},
		term{VPMADD52LUQ, f.y[1], f.x1, p.low1},
		term{VPMADD52LUQ, f.q[0], f.n2, part{}},
		term{VPMADD52HUQ, f.q[0], f.n1, part{}},
	)
	// The shortest way, for the next quotient waits for it. Other digits take the way
	// by memory, for such a move needs one of the two ports that multiply.
	VMOVQ(this.lanes[0].AsX(), d[0])

	Comment("Second row: to digit 2, which becomes digit 0.")
	sum := f.quotient(d[1], 1)
	ADDQ(word(scratch, other.lowest+2), sum[0])
	for _, r := range sum[1:] {
		ADDQ(r, sum[0])
	}
	ADDQ(sum[0], d[0])
	shiftDown(4, other.lanes, ops(other.lanes), f.zero, nil)
	n1 := slices.Clone(f.n1)
	n1[0] = word(modulus, at.without1)
	f.add(this,
		term{VPMADD52LUQ, f.q[1], n1, part{}},
		term{VPMADD52HUQ, f.q[1], f.n0, part{}},
	)
	f.add(other, term{VPMADD52HUQ, f.y[1], f.x2, p.high1})
	VMOVDQU64(this.lanes[0].AsY(), word(scratch, this.lowest))
	MOVQ(word(scratch, this.lowest+1), d[1])
	ADDQ(word(scratch, other.lowest+3), d[1])
	for i, m := range p.more {
		ADDQ(m, d[i])
	}
	f.acc = [2]accumulator{other, this}
}

// add adds terms to an accumulator.
func (f *frame) add(a accumulator, terms ...term) {
	for _, t := range terms {
		for i, r := range a.lanes {
			t.to(i, r)
		}
	}
}

// quotient generates the quotient that makes d zero, in all lanes of a vector, and
// in general registers what it makes N add to the next digit: the high half of its
// product with N_0, the low half of that with N_1, and a carry. It uses d up.
//
// The carry is what d has above its 52 bits, and one if those are not zero, since
// the low half of the product with N_0 makes them so. With N+1 instead of N less
// the quotient, where N_0 is 2^52-1, only what d has above its bits is left of the
// carry and the product with N_0.
func (f *frame) quotient(d reg.GPPhysical, n int) (sum []reg.Register) {
	at := f.layout()
	q := d
	if !f.lowOnes {
		q = quotient
		MOVQ(d, q)
		IMULQ(word(modulus, at.inverse), q)
	}
	// What is above the digit does no harm, here and in the vector.
	VPBROADCASTQ(q, f.q[n])
	MOVQ(word(modulus, at.low+1), low)
	IMULQ(q, low)
	ANDQ(word(modulus, at.largest), low)
	sum = []reg.Register{low}
	if !f.lowOnes {
		SHLQ(U8(spare), q)
		MULXQ(word(modulus, at.low), temporary, high)
		ADDQ(word(modulus, at.largest), d)
		sum = append(sum, high)
	}
	SHRQ(U8(digitBits), d)
	ADDQ(d, low)
	return sum
}

// ops returns registers as operands.
func ops(registers []reg.VecPhysical) (ops []Op) {
	for _, r := range registers {
		ops = append(ops, r)
	}
	return ops
}

func align() {
	Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []Op{Imm(64)}})
}

// product generates the Montgomery product z = x*y/2^(52*rows) mod N, or that plus
// N, of x and y below 2N.
//
// The result is (x*y + q*N) / 2^(52*rows) for a q below 2^(52*rows), so less than
// 4N*N / 2^(52*rows) + N, which is below 2N because 2^(52*rows) is more than 4N.
func product(s size) {
	TEXT(fmt.Sprintf("ifmaProduct%d", s.bits), NOSPLIT, "func(z, x, y, modulus, scratch *uint)")
	Doc(
		fmt.Sprintf("ifmaProduct%d sets z to the Montgomery product of x and y, for N of %d bits. z may be x or y.", s.bits, s.bits),
		"The scratch keeps secrets.",
	)
	Pragma("noescape")
	at := s.layout()
	Load(Param("x"), argX)
	Load(Param("y"), argY)
	Load(Param("modulus"), modulus)
	Load(Param("scratch"), scratch)
	columns(s)

	f := newFrame(s)
	Comment("x from digit 1 and from digit 2 up.")
	x, zero, shifted := f.acc[0].lanes, f.q[0], f.q[1]
	clearVector(zero)
	for i, r := range x {
		VMOVDQU64(word(argX, lanes*i), r)
	}
	shiftDown(1, x, f.x1, zero, shifted)
	shiftDown(2, x, f.x2, zero, shifted)
	f.start(word(scratch, at.columns), word(scratch, at.columns+1))
	for _, r := range x {
		clearVector(r)
	}

	loop := fmt.Sprintf("product%d", s.bits)
	align()
	Label(loop)
	for i := 0; i < 4; i += 2 {
		f.rows(pair{
			y0: word(argY, i).Idx(row, 8), y1: word(argY, i+1).Idx(row, 8),
			more: []Op{word(scratch, at.columns+i+2).Idx(row, 8), word(scratch, at.columns+i+3).Idx(row, 8)},
		})
	}
	ADDQ(U8(4), row)
	CMPQ(row, U8(s.rows))
	JB(LabelRef(loop))

	f.normalise()
	VZEROUPPER()
	RET()
}

// columns generates, for every row and for the two digits after the last, the sum
// of the halves of x_j*y_i that belong to the digit that the row makes zero and
// that the vectors do not have: those with j = 0, and with j = 1 the low ones of
// even rows and the high ones of odd rows. The latter come to odd digits only.
func columns(s size) {
	at := s.layout()
	y := vectors[:s.vectors]
	x := vectors[30:]
	zero := vectors[29]
	clearVector(zero)
	for i, r := range y {
		VMOVDQU64(word(argY, lanes*i), r)
	}
	for i, r := range x {
		VPBROADCASTQ(word(argX, i), r)
	}
	setMask(reg.K1, 0b10101010)
	for i := range (s.rows + scalars + lanes - 1) / lanes {
		// Two sets of registers in turns.
		f := vectors[s.vectors+i%2*4:]
		down, lo, hi := f[:2], f[2], f[3]
		this, before := zero, zero
		if i < s.vectors {
			this = y[i]
		}
		if i > 0 {
			before = y[i-1]
		}
		for j, r := range down {
			VALIGNQ(U8(7-j), before, this, r)
		}
		clearVector(lo)
		clearVector(hi)
		VPMADD52LUQ(x[0], this, lo)
		VPMADD52HUQ(x[0], down[0], hi)
		VPMADD52LUQ(x[1], down[0], reg.K1, lo)
		VPMADD52HUQ(x[1], down[1], reg.K1, hi)
		VPADDQ(hi, lo, lo)
		VMOVDQU64(lo, word(scratch, at.columns+lanes*i))
	}
}

func setMask(k reg.OpmaskPhysical, lanes uint32) {
	MOVL(U32(lanes), temporary.As32())
	KMOVB(temporary.As32(), k)
}

// interleave generates indices of the lanes of two vectors, in turns, from a lane
// on.
func interleave(name string, from int) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range lanes {
		DATA(8*i, U64(from+i/2+i%2*lanes))
	}
	return m
}

// square generates z = x*x/2^(52*rows) mod N, or that plus N, of x below 2N, as
// product does, with half of the products of digits of x.
//
// Row i has x_i times twice the digits of x from i+2 on. The digits of 2x are
// 2*x_j without the bit above the digit, plus that bit of x_(j-1), and the latter
// belongs to the row wherever the row has x_(j-1). So x_i times x_i and, without
// that bit, times 2*x_(i+1), are computed before, for all i at once: the near
// products.
//
// Rows come in blocks of eight, each of which has one vector of x less.
func square(s size) {
	TEXT(fmt.Sprintf("ifmaSquare%d", s.bits), NOSPLIT, "func(z, x, modulus, scratch *uint, times uint)")
	Doc(
		fmt.Sprintf("ifmaSquare%d sets z to the Montgomery square of x, for N of %d bits, and then squares it until", s.bits, s.bits),
		"there have been as many squares as times says, which is not 0. z may be x. The scratch keeps secrets.",
	)
	Pragma("noescape")
	at := s.layout()
	// The end of a square loads z into the same register.
	x := argZ
	Load(Param("x"), x)
	Load(Param("modulus"), modulus)
	Load(Param("scratch"), scratch)
	again := fmt.Sprintf("square%d", s.bits)
	align()
	Label(again)
	f := newFrame(s)
	f.near(x)
	// Digit 0 is the low half of x_0*x_0, the others are near products.
	f.start(word(x, 0), word(scratch, at.columns))
	IMULQ(f.digit[0], f.digit[0])
	ANDQ(word(modulus, at.largest), f.digit[0])

	for b := range s.vectors {
		Comment("The next block. Masks have lanes from 0 to 4 on, then from 4 to 8 on.")
		for i, k := range masks {
			KSHIFTLB(U8(i), allLanes, k)
		}
		block := fmt.Sprintf("square%dblock%d", s.bits, b)
		align()
		Label(block)
		f.rows(pair{
			y0: word(x, 0).Idx(row, 8), y1: word(x, 1).Idx(row, 8),
			low0: part{b, masks[0]}, high0: part{b, masks[1]}, low1: part{b, masks[2]}, high1: part{b, masks[1]},
		})
		f.rows(pair{
			y0: word(x, 2).Idx(row, 8), y1: word(x, 3).Idx(row, 8),
			low0: part{b, masks[2]}, high0: part{b, masks[3]}, low1: part{b, masks[4]}, high1: part{b, masks[3]},
		})
		ADDQ(U8(4), row)
		if s.rows-lanes*b < lanes {
			break
		}
		for _, k := range masks {
			KSHIFTLB(U8(lanes/2), k, k)
		}
		TESTQ(U32(lanes/2), row)
		JNZ(LabelRef(block))
	}

	Comment("The rest of the near products.")
	for v, r := range f.acc[0].lanes {
		VPADDQ(word(scratch, at.columns+s.rows+scalars-1+lanes*v), r, r)
	}
	f.normalise()
	times, err := Param("times").Resolve()
	if err != nil {
		panic(err)
	}
	DECQ(times.Addr)
	JNZ(LabelRef(again))
	VZEROUPPER()
	RET()
}

// near generates the near products, and twice the digits of x from digits 1 and 2
// up. The near products from digit 2 up, as many as it has lanes, become the first
// accumulator. All from digit 1 up are in the scratch, for the end of the square to
// add those that the accumulator did not have: the others of these are zeros then.
//
// Digit 2i+1 of the near products has the high half of x_i*x_i and the low half of
// x_i times 2*x_(i+1), digit 2i+2 the high half of that and the low half of
// x_(i+1)*x_(i+1).
func (f *frame) near(x reg.Register) {
	at := f.layout()
	twice, near, free := f.acc[0].lanes, f.acc[1].lanes, vectors[2*f.vectors:]
	take := func() (r reg.VecPhysical) {
		r, free = free[0], free[1:]
		return r
	}
	largest := take()
	VPTERNLOGQ(U8(0xFF), largest, largest, largest)
	VPSRLQ(U8(spare), largest, largest)
	setMask(allLanes, 0xFF)
	this := [2]reg.VecPhysical{take(), take()}
	up, double, even, odd, high := take(), take(), take(), take(), take()

	VMOVDQU64(word(x, 0), this[0])
	for v := range f.vectors {
		a, b := this[v%2], this[1-v%2]
		if v+1 < f.vectors {
			VMOVDQU64(word(x, lanes*(v+1)), b)
		} else {
			clearVector(b)
		}
		VALIGNQ(U8(1), a, b, up)
		VPADDQ(up, up, double)
		VPANDQ(largest, double, double)
		VPSRLQ(U8(digitBits-1), a, twice[v])
		VPORQ(double, twice[v], twice[v])
		clearVector(even)
		clearVector(odd)
		VPMADD52HUQ(a, a, odd)
		VPMADD52LUQ(double, a, odd)
		VPMADD52LUQ(up, up, even)
		VPMADD52HUQ(double, a, even)
		for half, indices := range []Mem{interleaveLow, interleaveHigh} {
			w, to := 2*v+half, high
			if w < f.vectors {
				to = near[w]
			}
			VMOVDQU64(indices, to)
			VPERMI2Q(even, odd, to)
			VMOVDQU64(to, word(scratch, at.columns+lanes*w))
		}
	}
	Comment("From digit 1 up to digit 2 up.")
	zero, shifted, above := f.y[0], f.y[1], f.q[0]
	clearVector(zero)
	shiftDown(1, twice, f.x2, zero, shifted)
	for i, r := range twice {
		VMOVDQU64(r, f.x1[i])
	}
	VMOVDQU64(word(scratch, at.columns+lanes*f.vectors), above)
	for i, r := range near {
		next := above
		if i+1 < f.vectors {
			next = near[i+1]
		}
		VALIGNQ(U8(1), r, next, twice[i])
	}
	VMOVDQU64(zero, word(scratch, at.rest))
	switch lanes*f.vectors - f.size.rows {
	case 0:
	case lanes / 2:
		// Four digits of the result that the accumulator has.
		VMOVDQU64(zero.AsY(), word(scratch, at.columns+f.size.rows+scalars-1))
	default:
		panic("no store for so many lanes")
	}
}

// normalise generates the end of a product: the digits of the general registers
// and of the vectors become digits below 2^52, in z.
//
// One step of all lanes at once moves what is above 52 bits, less than 2^9, to the
// next lane. After it a lane carries one or nothing: it does if it is above the
// largest digit, or is equal to that and gets a carry. So the addition of two bit
// masks finds all carries. z is below 2^(52*lanes), so the last lane has none.
func (f *frame) normalise() {
	acc, other := f.acc[0].lanes, f.acc[1].lanes
	up := other
	lowest, zero, ones, largest := vectors[28], vectors[29], vectors[30], vectors[31]

	Comment("The sum of both accumulators, and digits 0 and 1 in front of its lanes.")
	clearVector(zero)
	shiftDown(2, other, ops(other), zero, nil)
	for i, r := range acc {
		VPADDQ(other[i], r, r)
	}
	VMOVQ(f.digit[0], lowest.AsX())
	VPINSRQ(U8(1), f.digit[1], lowest.AsX(), lowest.AsX())
	// To the top, from where they move on in front of lane 0.
	VALIGNQ(U8(scalars), zero, lowest, lowest)
	for i := f.vectors - 1; i >= 0; i-- {
		before := lowest
		if i > 0 {
			before = acc[i-1]
		}
		VALIGNQ(U8(lanes-scalars), before, acc[i], acc[i])
	}

	Comment("One step of all lanes.")
	VPTERNLOGQ(U8(0xFF), ones, ones, ones)
	VPSRLQ(U8(spare), ones, largest)
	for i, r := range acc {
		VPSRLQ(U8(digitBits), r, up[i])
		VPANDQ(largest, r, r)
	}
	for i := f.vectors - 1; i >= 0; i-- {
		before := zero
		if i > 0 {
			before = up[i-1]
		}
		VALIGNQ(U8(lanes-1), before, up[i], up[i])
		VPADDQ(up[i], acc[i], acc[i])
	}

	Comment("All carries.")
	// Bits of the lanes that are above the largest digit, and equal to it.
	above := []reg.GPPhysical{reg.RAX, reg.RBX}
	equal := []reg.GPPhysical{reg.RCX, reg.RDX}
	words := (f.vectors + lanes - 1) / lanes
	for i := f.vectors - 1; i >= 0; i-- {
		VPCMPUQ(U8(6), largest, acc[i], reg.K1)
		VPCMPUQ(U8(0), largest, acc[i], reg.K2)
		for _, m := range []struct {
			k  reg.OpmaskPhysical
			to reg.GPPhysical
		}{{reg.K1, above[i/lanes]}, {reg.K2, equal[i/lanes]}} {
			if i == f.vectors-1 || i%lanes == lanes-1 {
				KMOVB(m.k, m.to.As32())
				continue
			}
			KMOVB(m.k, temporary.As32())
			SHLQ(U8(lanes), m.to)
			ORQ(temporary, m.to)
		}
	}
	ADDQ(above[0], above[0])
	for i := 1; i < words; i++ {
		ADCQ(above[i], above[i])
	}
	ADDQ(equal[0], above[0])
	for i := 1; i < words; i++ {
		ADCQ(equal[i], above[i])
	}
	for i := range words {
		XORQ(equal[i], above[i])
	}
	Load(Param("z"), argZ)
	for i, r := range acc {
		KMOVB(above[i/lanes].As32(), reg.K1)
		SHRQ(U8(lanes), above[i/lanes])
		VPSUBQ(ones, r, reg.K1, r)
		VPANDQ(largest, r, r)
		VMOVDQU64(r, word(argZ, lanes*i))
	}
}

// read generates the choice of one of 16 entries. It loads every word of
// every entry, by plain loads and in the same order always, and keeps those of one
// under a mask that a comparison makes of the digit.
func read(s size) {
	TEXT(fmt.Sprintf("ifmaRead%d", s.bits), NOSPLIT, "func(z, entries *uint, digit uint)")
	Doc(fmt.Sprintf("ifmaRead%d sets z to the entry that the digit names, of 16 elements of %d bits, all of which", s.bits, s.bits), "it loads.")
	Pragma("noescape")
	z, entries, wanted := reg.RDI, reg.RSI, reg.RAX
	Load(Param("z"), z)
	Load(Param("entries"), entries)
	Load(Param("digit"), wanted)
	acc := vectors[:s.vectors]
	mask, ones, this, all := vectors[28], vectors[29], vectors[30], vectors[31]
	VPBROADCASTQ(wanted, all)
	VPTERNLOGQ(U8(0xFF), ones, ones, ones)
	clearVector(this)
	for _, r := range acc {
		clearVector(r)
	}
	for j := range 16 {
		VPCMPUQ(U8(0), this, all, reg.K1)
		VMOVDQA64_Z(ones, reg.K1, mask)
		VPSUBQ(ones, this, this)
		for i, r := range acc {
			// r or (mask and entry).
			VPTERNLOGQ(U8(0xF8), word(entries, lanes*(s.vectors*j+i)), mask, r)
		}
	}
	for i, r := range acc {
		VMOVDQU64(r, word(z, lanes*i))
	}
	VZEROUPPER()
	RET()
}

// wipe generates what overwrites the registers of the routines above. VZEROUPPER
// would leave half of those below Z16, and all of the others.
func wipe() {
	TEXT("ifmaWipe", NOSPLIT, "func()")
	Doc("ifmaWipe overwrites what the routines above leave in registers.")
	for _, r := range vectors {
		clearVector(r)
	}
	for _, k := range append(masks, allLanes) {
		KXORW(k, k, k)
	}
	for _, r := range append(lowDigits[:], quotient, low, high, temporary, row) {
		XORL(r.As32(), r.As32())
	}
	VZEROUPPER()
	RET()
}
