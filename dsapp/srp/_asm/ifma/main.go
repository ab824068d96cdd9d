// Command ifma generates the assembly of the kernel for processors with AVX-512
// IFMA. Run it by go generate in the directory of the package.
package main

import (
	"fmt"

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
	// rows is the number of digits of the second factor of a product, an even one.
	// 2^(52*rows) is more than 4N.
	rows int
	// sums is the number of registers in which pairs of rows are summed up, and
	// separate the number of columns that use them, from the lowest. The others are
	// added to in place, which takes no addition at the end but more time from one
	// pair to the next: shorter than the pair itself for many vectors only.
	sums, separate int
}

var sizes = []size{
	{bits: 1024, vectors: 3, rows: 20, sums: 3, separate: 3},
	{bits: 1536, vectors: 4, rows: 30, sums: 4, separate: 4},
	{bits: 2048, vectors: 5, rows: 40, sums: 3, separate: 5},
	{bits: 3072, vectors: 8, rows: 60, sums: 4, separate: 8},
	{bits: 4096, vectors: 10, rows: 80, sums: 2, separate: 1},
}

const (
	lanes     = 8
	digitBits = 52
	// spare is the number of bits of a word above a digit. A factor shifted left by
	// that many makes MULX put the high half of a product, in digits, into its high
	// word.
	spare = 64 - digitBits
	// scalars is the number of digits below the vectors.
	scalars = 4
)

// Words of the modulus and of the scratch, after the vectors that begin with them.
type layout struct {
	// Modulus: N from digit 4 up, N from digit 3 up, digits 0 to 3, -1/N.
	above4, above3, low, inverse int
	// Scratch: the columns, x from digit 3 up, two quotients, two digits.
	columns, x3, quotients, digits int
}

func (s size) layout() layout {
	l := lanes * s.vectors
	return layout{
		above4: 0, above3: l, low: 2 * l, inverse: 2*l + scalars,
		columns: 0, x3: l + lanes, quotients: 2*l + lanes, digits: 2*l + lanes + 4,
	}
}

func main() {
	ConstraintExpr("!purego")
	for _, s := range sizes {
		product(s)
		selection(s)
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
	// digit holds the digits of the accumulator below the vectors.
	digit = [scalars]reg.GPPhysical{reg.R9, reg.R10, reg.R11, reg.R12}
	// quotient is the factor of MULX, and takes no other register.
	quotient            = reg.RDX
	low                 = reg.RBX
	high0, high1, high2 = reg.RAX, reg.R14, reg.R15
	temporary           = reg.R13
)

// word addresses a word behind a pointer.
func word(base reg.Register, n int) Mem { return Mem{Base: base, Disp: 8 * n} }

func clearVector(r reg.VecPhysical) { VPXORQ(r, r, r) }

// product generates the Montgomery product z = x*y/2^(52*rows) mod N, or that plus
// N, of x and y below 2N.
//
// Row i adds y_i*x to an accumulator, then the multiple q_i*N of N that makes its
// lowest digit zero, and takes that digit away. Two rows make one turn of the
// loop, on this accumulator:
//
//   - Digits 0 to 3 are in general registers, so the quotient of a row never waits
//     for a vector. The digits that the turn moves down from the vectors are needed
//     two rows later.
//   - Lane j of the vectors is digit 4+j, and moves by two lanes a turn. The first
//     row of a turn adds its high halves, the second its low halves, one lane
//     further up: they take x and N from digit 3, the others take them from digit
//     4. The second row adds its high halves after the move.
//   - What x_0 to x_3 give to the digits in general registers does not depend on
//     quotients, and is computed before, for all rows: see columns.
//
// No carry moves between lanes. A turn adds 8 halves of products to a lane, each
// below 2^52, and a digit has been a lane for 40 turns at most when it comes to
// the general registers. There it gets 15 halves more, 8 of them from columns, and
// a carry of 2^9 at most. 336*2^52 is below 2^61.
//
// The result is (x*y + q*N) / 2^(52*rows) for a q below 2^(52*rows), so less than
// 4N*N / 2^(52*rows) + N, which is below 2N because 2^(52*rows) is more than 4N.
func product(s size) {
	TEXT(fmt.Sprintf("ifmaProduct%d", s.bits), NOSPLIT, "func(z, x, y, modulus, scratch *uint, times uint)")
	Doc(
		fmt.Sprintf("ifmaProduct%d sets z to the Montgomery product of x and y, for N of %d bits, and then squares", s.bits, s.bits),
		"it until there have been as many products as times says, which is not 0. z may be x or y. The scratch",
		"keeps secrets.",
	)
	Pragma("noescape")
	at := s.layout()
	Load(Param("x"), argX)
	Load(Param("y"), argY)
	Load(Param("modulus"), modulus)
	Load(Param("scratch"), scratch)
	again := fmt.Sprintf("again%d", s.bits)
	Label(again)
	columns(s)

	free := vectors
	take := func(n int) (r []reg.VecPhysical) {
		r, free = free[:n], free[n:]
		return r
	}
	acc := take(s.vectors)
	x4 := take(s.vectors)
	sum := take(s.sums)
	f := take(4)
	y0, y1, q0, q1 := f[0], f[1], f[2], f[3]
	// The rest of the registers takes as much as it can of what else is read in
	// every turn.
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
	x3, n4, n3 := operands(scratch, at.x3), operands(modulus, at.above4), operands(modulus, at.above3)

	Comment("x from digit 3 and from digit 4 up.")
	zero, shifted := q0, q1
	clearVector(zero)
	for i, r := range x4 {
		VMOVDQU64(word(argX, lanes*i), r)
	}
	for i, r := range x4 {
		next := zero
		if i+1 < s.vectors {
			next = x4[i+1]
		}
		if to, ok := x3[i].(reg.VecPhysical); ok {
			VALIGNQ(U8(3), r, next, to)
		} else {
			VALIGNQ(U8(3), r, next, shifted)
			VMOVDQU64(shifted, x3[i])
		}
		VALIGNQ(U8(4), r, next, r)
	}
	for i := range s.vectors {
		if r, ok := n4[i].(reg.VecPhysical); ok {
			VMOVDQU64(word(modulus, at.above4+lanes*i), r)
		}
		if r, ok := n3[i].(reg.VecPhysical); ok {
			VMOVDQU64(word(modulus, at.above3+lanes*i), r)
		}
		clearVector(acc[i])
	}
	MOVQ(word(scratch, at.columns), digit[0])
	MOVQ(word(scratch, at.columns+1), digit[1])
	XORL(digit[2].As32(), digit[2].As32())
	XORL(digit[3].As32(), digit[3].As32())
	XORL(row.As32(), row.As32())

	loop := fmt.Sprintf("rows%d", s.bits)
	Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []Op{Imm(64)}})
	Label(loop)
	VPBROADCASTQ(word(argY, 0).Idx(row, 8), y0)
	VPBROADCASTQ(word(argY, 1).Idx(row, 8), y1)
	nextColumns := func() {
		ADDQ(word(scratch, at.columns+2).Idx(row, 8), digit[2])
		ADDQ(word(scratch, at.columns+3).Idx(row, 8), digit[3])
	}
	nextColumns()

	Comment("First row: its quotient, and what N adds to digits 1 to 3.")
	quotientOf(s, digit[0], q0, 0)
	MULXQ(word(modulus, at.low), low, high0)
	MULXQ(word(modulus, at.low+1), low, high1)
	carry(digit[0], digit[1])
	addLow(digit[1])
	ADDQ(high0, digit[1])
	MULXQ(word(modulus, at.low+2), low, high2)
	addLow(digit[2])
	ADDQ(high1, digit[2])
	MOVQ(word(modulus, at.low+3), low)
	IMULQ(quotient, low)
	addLow(digit[3])
	ADDQ(high2, digit[3])

	Comment("Second row: to digits 2 and 3, and to the next two in high2 and high0.")
	quotientOf(s, digit[1], q1, 1)
	MULXQ(word(modulus, at.low), low, high0)
	MULXQ(word(modulus, at.low+1), low, high1)
	carry(digit[1], digit[2])
	addLow(digit[2])
	ADDQ(high0, digit[2])
	MULXQ(word(modulus, at.low+2), low, high2)
	addLow(digit[3])
	ADDQ(high1, digit[3])
	MULXQ(word(modulus, at.low+3), low, high0)
	MOVQ(digit[2], digit[0])
	MOVQ(digit[3], digit[1])

	Comment("All halves that belong before the move.")
	for first := 0; first < s.vectors; first += s.sums {
		n := min(s.sums, s.vectors-first)
		to := make([]reg.VecPhysical, n)
		for i := range to {
			to[i] = acc[first+i]
			if first+i < s.separate {
				to[i] = sum[i]
				clearVector(to[i])
			}
		}
		each := func(add func(...Op), factor reg.VecPhysical, columns []Op) {
			for i, r := range to {
				add(columns[first+i], factor, r)
			}
		}
		each(VPMADD52LUQ, y0, ops(x4))
		each(VPMADD52HUQ, y0, x3)
		each(VPMADD52LUQ, y1, x3)
		each(VPMADD52LUQ, q0, n4)
		each(VPMADD52HUQ, q0, n3)
		each(VPMADD52LUQ, q1, n3)
		for i, r := range to {
			if first+i < s.separate {
				VPADDQ(r, acc[first+i], acc[first+i])
			}
		}
		if first == 0 {
			// By memory, for a move between vector and general registers takes one of
			// the two ports that multiply.
			VMOVDQU(acc[0].AsX(), word(scratch, at.digits))
			MOVQ(high2, digit[2])
			MOVQ(high0, digit[3])
			ADDQ(word(scratch, at.digits), digit[2])
			ADDQ(word(scratch, at.digits+1), digit[3])
		}
	}

	Comment("The move, and the high halves of the second row.")
	clearVector(sum[0])
	for i, r := range acc {
		next := sum[0]
		if i+1 < s.vectors {
			next = acc[i+1]
		}
		VALIGNQ(U8(2), r, next, r)
	}
	for i, r := range acc {
		VPMADD52HUQ(x4[i], y1, r)
	}
	for i, r := range acc {
		VPMADD52HUQ(n4[i], q1, r)
	}
	ADDQ(U8(2), row)
	CMPQ(row, U8(s.rows))
	JB(LabelRef(loop))

	nextColumns()
	normalise(s, acc)
	// argY is argZ.
	MOVQ(argZ, argX)
	times, err := Param("times").Resolve()
	if err != nil {
		panic(err)
	}
	DECQ(times.Addr)
	JNZ(LabelRef(again))
	VZEROUPPER()
	RET()
}

// ops returns registers as operands.
func ops(registers []reg.VecPhysical) (ops []Op) {
	for _, r := range registers {
		ops = append(ops, r)
	}
	return ops
}

// quotientOf puts the quotient that makes d zero, shifted left, into quotient, and
// into all lanes of to.
func quotientOf(s size, d reg.GPPhysical, to reg.VecPhysical, n int) {
	at := s.layout()
	MOVQ(d, quotient)
	IMULQ(word(modulus, at.inverse), quotient)
	MOVQ(quotient, temporary)
	SHRQ(U8(spare), temporary)
	// By memory, as above.
	MOVQ(temporary, word(scratch, at.quotients+n))
	VPBROADCASTQ(word(scratch, at.quotients+n), to)
}

// carry adds to the next digit what is above the 52 bits of d, and one if those
// are not zero: the low half of the quotient times N_0, which is not computed,
// makes them so.
func carry(d, next reg.GPPhysical) {
	MOVQ(d, temporary)
	SHLQ(U8(spare), temporary)
	SHRQ(U8(digitBits), d)
	NEGQ(temporary)
	ADCQ(d, next)
}

// addLow adds the low half of a product of the shifted quotient.
func addLow(to reg.GPPhysical) {
	SHRQ(U8(spare), low)
	ADDQ(low, to)
}

// columns generates, for every row and for the four digits after the last, the sum
// of the halves of x_j*y_i that belong to the digit that the row makes zero and
// that the vectors do not have: those with j below 3, and with j = 3 the low ones
// of even rows and the high ones of odd rows. The latter come to odd digits only.
func columns(s size) {
	at := s.layout()
	y := vectors[:s.vectors]
	x := vectors[28:]
	zero := vectors[27]
	clearVector(zero)
	for i, r := range y {
		VMOVDQU64(word(argY, lanes*i), r)
	}
	for i, r := range x {
		VPBROADCASTQ(word(argX, i), r)
	}
	MOVL(U32(0b10101010), low.As32())
	KMOVB(low.As32(), reg.K1)
	for i := range (s.rows + scalars + lanes - 1) / lanes {
		// Two sets of registers in turns.
		f := vectors[s.vectors+i%2*6:]
		down, lo, hi := f[:4], f[4], f[5]
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
		VPMADD52LUQ(x[1], down[0], lo)
		VPMADD52HUQ(x[1], down[1], hi)
		VPMADD52LUQ(x[2], down[1], lo)
		VPMADD52HUQ(x[2], down[2], hi)
		VPMADD52LUQ(x[3], down[2], reg.K1, lo)
		VPMADD52HUQ(x[3], down[3], reg.K1, hi)
		VPADDQ(hi, lo, lo)
		VMOVDQU64(lo, word(scratch, at.columns+lanes*i))
	}
}

// normalise generates the end of a product: the digits of the general registers
// and of the vectors become digits below 2^52, in z.
//
// One step of all lanes at once moves what is above 52 bits, less than 2^9, to the
// next lane. After it a lane carries one or nothing: it does if it is above the
// largest digit, or is equal to that and gets a carry. So the addition of two bit
// masks finds all carries. z is below 2^(52*lanes), so the last lane has none.
func normalise(s size, acc []reg.VecPhysical) {
	up := vectors[s.vectors : 2*s.vectors]
	lowest, zero, ones, largest := vectors[28], vectors[29], vectors[30], vectors[31]

	Comment("Digits 0 to 3 in front of the lanes.")
	clearVector(lowest)
	for i, d := range digit {
		MOVL(U32(1<<(scalars+i)), temporary.As32())
		KMOVB(temporary.As32(), reg.K1)
		VPBROADCASTQ(d, reg.K1, lowest)
	}
	for i := s.vectors - 1; i >= 0; i-- {
		before := lowest
		if i > 0 {
			before = acc[i-1]
		}
		VALIGNQ(U8(lanes-scalars), before, acc[i], acc[i])
	}

	Comment("One step of all lanes.")
	clearVector(zero)
	VPTERNLOGQ(U8(0xFF), ones, ones, ones)
	VPSRLQ(U8(spare), ones, largest)
	for i, r := range acc {
		VPSRLQ(U8(digitBits), r, up[i])
		VPANDQ(largest, r, r)
	}
	for i := s.vectors - 1; i >= 0; i-- {
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
	words := (s.vectors + lanes - 1) / lanes
	for i := s.vectors - 1; i >= 0; i-- {
		VPCMPUQ(U8(6), largest, acc[i], reg.K1)
		VPCMPUQ(U8(0), largest, acc[i], reg.K2)
		for _, m := range []struct {
			k  reg.OpmaskPhysical
			to reg.GPPhysical
		}{{reg.K1, above[i/lanes]}, {reg.K2, equal[i/lanes]}} {
			if i == s.vectors-1 || i%lanes == lanes-1 {
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

// selection generates the choice of one of 16 entries. It reads every word of
// every entry, by plain loads and in the same order always, and keeps those of one
// under a mask that a comparison makes of the digit.
func selection(s size) {
	TEXT(fmt.Sprintf("ifmaSelect%d", s.bits), NOSPLIT, "func(z, entries *uint, digit uint)")
	Doc(fmt.Sprintf("ifmaSelect%d sets z to the entry that the digit names, of 16 elements of %d bits, all of which", s.bits, s.bits), "it reads.")
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
	Doc("ifmaWipe overwrites what products and selections leave in registers.")
	for _, r := range vectors {
		clearVector(r)
	}
	KXORW(reg.K1, reg.K1, reg.K1)
	KXORW(reg.K2, reg.K2, reg.K2)
	for _, r := range append(digit[:], quotient, low, high0, high1, high2, temporary, row) {
		XORL(r.As32(), r.As32())
	}
	VZEROUPPER()
	RET()
}
