// Command ifma generates the assembly of the kernel for processors with AVX-512
// IFMA. Run it by go generate in the directory of package srp.
package main

import (
	"fmt"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// size has the parameters of the routines for one size of N.
type size struct {
	bits int
	// vectors is the number of registers that hold an element, 8 digits in each.
	vectors int
	// rows is the number of digits of the second factor of a product, a multiple of
	// four. 2^(52*rows) is more than 4N.
	rows int
	// lowOnes is true if N is -1 modulo 2^64. The quotient of a row is then the digit
	// itself.
	lowOnes bool
}

// No profile has 1024 bits: that size is for the test vectors of RFC 5054.
var sizes = []size{
	{bits: 1024, vectors: 3, rows: 20},
	{bits: 2048, vectors: 5, rows: 40},
	{bits: 3072, vectors: 8, rows: 60, lowOnes: true},
	{bits: 4096, vectors: 10, rows: 80, lowOnes: true},
}

const (
	lanes     = 8
	digitBits = 52
	// spare is the number of bits of a word above a digit. If one factor is shifted left
	// by that many bits, the high word of MULX is the high digit of the product.
	spare = 64 - digitBits
	// scalars is the number of digits in general registers, below those in vectors.
	scalars = 2
)

// layout has the indices of words in the modulus and in the scratch.
type layout struct {
	// Modulus: N from digits 2, 1 and 0 up, the last with 0 in place of digit 0; one
	// vector with 0 and N from digit 2 up; digits 0 and 1; -1/N; 2^52-1.
	above2, above1, above0, without1, low, inverse, largest int
	// Scratch: the columns or the near products, a register of zeros, x from digits 1 and
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

// Indices for VPERMI2Q that interleave the lower or the upper halves of two vectors.
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
	// quotient is the implicit factor of MULX.
	quotient  = reg.RDX
	low       = reg.RBX
	high      = reg.RAX
	temporary = reg.R13
)

// Mask registers for squares.
var (
	masks    = []reg.OpmaskPhysical{reg.K1, reg.K2, reg.K3, reg.K4, reg.K5}
	allLanes = reg.K6
)

// word returns the operand for word n at an address.
func word(base reg.Register, n int) Mem { return Mem{Base: base, Disp: 8 * n} }

func clearVector(r reg.VecPhysical) { VPXORQ(r, r, r) }

// frame has the registers of a product or square between two pairs of rows.
type frame struct {
	size
	// acc are the two accumulators. Pairs of rows add to them in turns: the next pair adds
	// to the first one. Lane j of the first is digit 2+j, lane j of the second is digit j.
	acc        [2]accumulator
	y, q       [2]reg.VecPhysical
	zero       reg.VecPhysical
	x2, x1     []Op // x from digits 2 and 1 up
	n2, n1, n0 []Op // N from digits 2, 1 and 0 up
	digit      [scalars]reg.GPPhysical
}

// accumulator is a sum of high and low halves of products.
type accumulator struct {
	lanes []reg.VecPhysical
	// lowest is the index of its lowest lanes in the scratch.
	lowest int
}

// newFrame assigns the registers. Operands for which there is none are read from memory.
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

// start loads N and the given digits, and clears the accumulator that the second pair adds
// to.
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

// shiftDown sets to to from, shifted down by n lanes across all vectors. to may be from.
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

// part is the part of x that a row is multiplied with: the lanes of one vector that are in
// a mask, and all vectors above it. The zero value is all of x.
type part struct {
	vector int
	mask   Op
}

// pair has the parameters of one pair of rows.
type pair struct {
	// y0 and y1 are the digits of the second factor.
	y0, y1 Op
	// more, if not empty, are added to the digits that come from the vectors.
	more []Op
	// low0, high0, low1 and high1 are the parts of x for the low and high halves of the
	// products with y0 and y1.
	low0, high0, low1, high1 part
}

// term is the addition of high or low halves of products to all columns.
type term struct {
	add     func(...Op)
	factor  reg.VecPhysical
	columns []Op
	part    part
}

// to adds the term to a column, if it is in the part.
func (t term) to(column int, r reg.VecPhysical) {
	switch {
	case column < t.part.vector:
	case column == t.part.vector && t.part.mask != nil:
		t.add(t.columns[column], t.factor, t.part.mask, r)
	default:
		t.add(t.columns[column], t.factor, r)
	}
}

// rows generates two rows. Row i adds y_i*x to the sum, then the multiple q_i*N of N that
// makes the lowest digit of the sum zero, and drops that digit. The digits of the sum are
// distributed as follows:
//
//   - Digits 0 and 1 are in general registers, so that computing the quotient of a row
//     never waits for a vector.
//   - The others are the sums of the lanes of two accumulators. Pairs of rows add to them
//     in turns, and they are shifted by four lanes every other turn, so that the chain of
//     additions of each has the time of two pairs. The second row adds its high halves of
//     x to the accumulator of the next pair.
//   - Digits 2 and 3 become digits 0 and 1 of the next pair. The contribution of the second
//     quotient to digit 2, which is needed first, is added in a general register.
//   - The contributions of x to the digits in general registers do not depend on
//     quotients. They are computed in advance for all rows.
//
// No carry moves between lanes. A pair adds 8 halves of products to a digit, each below
// 2^52, and a digit is in lanes for at most 40 pairs before it moves to a general register.
// There 8 more halves and a carry of at most 2^9 are added. 336*2^52 is below 2^61.
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
	// The next quotient waits for this digit, so it is moved directly. Other digits are
	// moved through memory, since a direct move occupies one of the two ports that multiply.
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

// quotient generates the quotient q that makes digit d zero, in all lanes of vector n, and
// returns general registers whose sum q*N adds to the next digit: the high half of q*N_0,
// the low half of q*N_1, and a carry. It destroys d.
//
// The carry is the bits of d above 52, plus one if the lower bits are not zero, since adding
// the low half of q*N_0 makes them zero. With lowOnes, N_0 is 2^52-1 and the code computes
// q*(N+1) - q instead, for which only the bits of d above 52 remain of the carry and q*N_0.
func (f *frame) quotient(d reg.GPPhysical, n int) (sum []reg.Register) {
	at := f.layout()
	q := d
	if !f.lowOnes {
		q = quotient
		MOVQ(d, q)
		IMULQ(word(modulus, at.inverse), q)
	}
	// Higher bits of q do not matter, here and in the vector.
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
		"Secrets remain in scratch.",
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

// columns generates, for every row and for the two digits after the last one, the sum of
// those halves of x_j*y_i that belong to the digit that the row makes zero and that the
// vectors do not contain: all with j = 0, and of those with j = 1 the low halves of even
// rows and the high halves of odd rows. The latter belong to odd digits only.
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
		// Two sets of registers are used alternately.
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

// interleave generates the indices that interleave the lanes of two vectors, starting with
// a lane.
func interleave(name string, from int) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range lanes {
		DATA(8*i, U64(from+i/2+i%2*lanes))
	}
	return m
}

// square generates z = x*x/2^(52*rows) mod N, or that plus N, of x below 2N, as product
// does, with half of the products of digits of x.
//
// Row i is x_i times the digits of 2x from i+2 on. Digit j of 2x is 2*x_j without the bit
// above the digit, plus that bit of 2*x_(j-1), which belongs to the row if x_(j-1) does.
// The other products of x_i, with x_i and with 2*x_(i+1) without that bit, are the near
// products. They are computed in advance for all i at once.
//
// Each block of eight rows has one vector of x less than the block before.
func square(s size) {
	TEXT(fmt.Sprintf("ifmaSquare%d", s.bits), NOSPLIT, "func(z, x, modulus, scratch *uint, times uint)")
	Doc(
		fmt.Sprintf("ifmaSquare%d sets z to the Montgomery square of x, for N of %d bits, and squares z again", s.bits, s.bits),
		"until it has squared times times. times is not 0. z may be x. Secrets remain in scratch.",
	)
	Pragma("noescape")
	at := s.layout()
	// x and z share a register: the next square continues with z.
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
		Comment("The next block. Mask i selects the lanes from i on, in the second turn from 4+i on.")
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

// near generates the near products, and 2x from digits 1 and 2 up. The near products from
// digit 2 up fill the lanes of the first accumulator. Those from digit 1 up are in the
// scratch. At its end the square adds those that did not fit into the accumulator; the
// words before them in the last vector are set to 0.
//
// Digit 2i+1 of the near products is the sum of the high half of x_i*x_i and the low half
// of x_i * 2*x_(i+1). Digit 2i+2 is the sum of the high half of the latter and the low half
// of x_(i+1)*x_(i+1).
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
		// Four digits that the accumulator contains.
		VMOVDQU64(zero.AsY(), word(scratch, at.columns+f.size.rows+scalars-1))
	default:
		panic("no store for so many lanes")
	}
}

// normalise generates the end of a product: it sets z to the sum, with digits below 2^52.
//
// One step for all lanes at once moves the bits above 52, less than 2^9, to the next lane.
// After that the carry of a lane is 0 or 1. It is 1 if the lane is above the largest digit,
// or equal to it and gets a carry itself. Therefore the addition of two bit masks finds all
// carries. z is below 2^(52*lanes), so the last lane has none.
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
	// To the top lanes, from where the next shift moves them in front of lane 0.
	VALIGNQ(U8(scalars), zero, lowest, lowest)
	for i := f.vectors - 1; i >= 0; i-- {
		before := lowest
		if i > 0 {
			before = acc[i-1]
		}
		VALIGNQ(U8(lanes-scalars), before, acc[i], acc[i])
	}

	Comment("One step for all lanes.")
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
	// One bit for each lane: whether it is above the largest digit, and equal to it.
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

// read generates the selection of one of 16 entries. It loads every word of every entry in
// a fixed order, and selects by masks from comparisons with the digit.
func read(s size) {
	TEXT(fmt.Sprintf("ifmaRead%d", s.bits), NOSPLIT, "func(z, entries *uint, digit uint)")
	Doc(fmt.Sprintf("ifmaRead%d sets z to entry digit of 16 elements of %d bits. It loads all of them.", s.bits, s.bits))
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

// wipe generates the routine that clears all registers that the others use. VZEROUPPER does
// not clear the lower halves of Z0 to Z15, nor Z16 to Z31.
func wipe() {
	TEXT("ifmaWipe", NOSPLIT, "func()")
	Doc("ifmaWipe clears the registers that the routines above use.")
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
