//go:build !race

package srp

import (
	"encoding/binary"
	"errors"
)

// Kinds of instructions, by where they go on.
const (
	traceNext     = iota // at the instruction that follows
	traceBranch          // there or at target, by the flags
	traceJump            // at target
	traceCall            // at target, and comes back
	traceReturn          // at the caller
	traceOther           // anywhere else
	traceAllocate        // at the allocator, and comes back; the decoder does not tell
)

// traceNone stands for no register.
const traceNone = -1

// traceInstruction is what a tracer needs to know of one instruction.
type traceInstruction struct {
	size      int
	kind      int
	condition byte   // of a branch, as the processor numbers them
	target    uint64 // of a branch, jump or call
	call      bool   // to what a register or memory holds
	product   bool   // of a call to assembly that computes; the decoder does not tell
	// base and index are the registers that the address of its operand depends
	// on; text tells that it reads or writes at RSI and RDI instead.
	base, index int
	text        bool
}

// traceMaxSize is the size of the longest instruction.
const traceMaxSize = 15

var errTraceInstruction = errors.New("instruction that the tracer does not know")

// decodeTrace reads the instruction with the given bytes, at pc: its size, where it
// goes on, and the registers of its memory operand. Volume 2 of the manuals of the
// processor, chapter 2 and appendix A, has the format.
func decodeTrace(b []byte, pc uint64) (traceInstruction, error) {
	d := traceDecoder{b: b, i: traceInstruction{base: traceNone, index: traceNone}}
	d.instruction(pc)
	if d.bad || d.at > len(b) {
		return traceInstruction{}, errTraceInstruction
	}
	d.i.size = d.at
	if d.relative {
		d.i.target += pc + uint64(d.at)
	}
	return d.i, nil
}

type traceDecoder struct {
	b  []byte
	at int
	i  traceInstruction
	// Prefixes: operands of 16 and of 64 bits, and the top bits of the registers.
	small, large    bool
	topBase, topIdx int
	modrm           byte
	relative, bad   bool
}

func (d *traceDecoder) next() byte {
	d.at++
	if d.at > len(d.b) {
		d.bad = true
		return 0
	}
	return d.b[d.at-1]
}

// tops takes the top bits of index and base out of a byte that has them inverted.
func (d *traceDecoder) tops(inverted byte) {
	d.topIdx, d.topBase = int(^inverted>>6&1)<<3, int(^inverted>>5&1)<<3
}

func (d *traceDecoder) instruction(pc uint64) {
	op := d.next()
	for prefix := true; prefix; {
		switch op {
		case 0x66:
			d.small = true
			op = d.next()
		case 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0xF0, 0xF2, 0xF3:
			op = d.next()
		default:
			prefix = false
		}
	}
	if op>>4 == 4 { // REX
		d.large = op&8 != 0
		d.topIdx, d.topBase = int(op>>1&1)<<3, int(op&1)<<3
		op = d.next()
	}
	switch op {
	case 0x0F:
		switch op = d.next(); op {
		case 0x38:
			d.vector(2, d.next())
		case 0x3A:
			d.vector(3, d.next())
		default:
			d.twoBytes(op)
		}
	case 0xC5:
		d.next()
		d.vector(1, d.next())
	case 0xC4:
		p := d.next()
		d.tops(p)
		d.next()
		d.vector(p&31, d.next())
	case 0x62:
		p := d.next()
		d.tops(p)
		d.next()
		d.next()
		d.vector(p&7, d.next())
	default:
		d.oneByte(op)
	}
}

// vector reads an instruction of the given map, of which most are for vectors.
func (d *traceDecoder) vector(m, op byte) {
	switch m {
	case 1:
		if op == 0x77 { // VZEROUPPER
			return
		}
		d.operand()
		switch op {
		case 0x70, 0x71, 0x72, 0x73, 0xC2, 0xC4, 0xC5, 0xC6:
			d.at++
		}
	case 2:
		// Gathering and scattering have addresses in vectors.
		d.bad = d.bad || op >= 0x90 && op <= 0x93 || op >= 0xA0 && op <= 0xA3 || op == 0xC6 || op == 0xC7
		d.operand()
	case 3:
		d.operand()
		d.at++
	default:
		d.bad = true
	}
}

func (d *traceDecoder) twoBytes(op byte) {
	switch {
	case op == 0x05 || op == 0x31 || op == 0xA2 || op >= 0xC8 && op <= 0xCF:
		// SYSCALL, RDTSC, CPUID, BSWAP
	case op == 0x77:
		// EMMS
	case op >= 0x80 && op <= 0x8F:
		d.branch(traceBranch, 4)
		d.i.condition = op & 15
	case op == 0x18 || op == 0x1E || op == 0x1F:
		// Hints and no-operations do not use what their operand addresses.
		d.operand()
		d.i.base, d.i.index = traceNone, traceNone
	case op >= 0x70 && op <= 0x73 || op == 0xA4 || op == 0xAC || op == 0xBA || op == 0xC2 || op >= 0xC4 && op <= 0xC6:
		d.operand()
		d.at++
	case op == 0x01 || op == 0x0B || op < 0x10 && op != 0x0D || op >= 0x24 && op <= 0x27 || op >= 0x30 && op <= 0x37 || op == 0xA0 || op == 0xA1 || op == 0xA8 || op == 0xA9 || op == 0xAA || op == 0xFF:
		if op == 0x01 && d.at < len(d.b) && d.b[d.at] == 0xD0 || op == 0x01 && d.at < len(d.b) && d.b[d.at] == 0xF9 {
			d.at++ // XGETBV, RDTSCP
			return
		}
		d.bad = true
	default:
		d.operand()
	}
}

func (d *traceDecoder) oneByte(op byte) {
	switch {
	case op < 0x40:
		switch {
		case op&7 < 4:
			d.operand()
		case op&7 == 4:
			d.at++
		case op&7 == 5:
			d.immediate()
		default:
			d.bad = true
		}
	case op < 0x60: // PUSH, POP
	case op == 0x63 || op >= 0x84 && op <= 0x8C || op == 0x8E || op == 0x8F || op >= 0xD0 && op <= 0xD3 || op == 0xFE:
		d.operand()
	case op == 0x8D: // LEA does not use the address
		d.operand()
		d.i.base, d.i.index = traceNone, traceNone
	case op == 0x68 || op == 0xA9:
		d.immediate()
	case op == 0x69 || op == 0x81 || op == 0xC7:
		d.operand()
		d.immediate()
	case op == 0x6A || op == 0xA8 || op >= 0xB0 && op <= 0xB7:
		d.at++
	case op == 0x6B || op == 0x80 || op == 0x83 || op == 0xC0 || op == 0xC1 || op == 0xC6:
		d.operand()
		d.at++
	case op >= 0x70 && op <= 0x7F:
		d.branch(traceBranch, 1)
		d.i.condition = op & 15
	case op >= 0x90 && op <= 0x99 || op == 0x9B || op == 0x9E || op == 0x9F || op == 0xC9 || op >= 0xF8 && op <= 0xFD || op == 0xF5:
	case op >= 0xA4 && op <= 0xA7 || op >= 0xAA && op <= 0xAF:
		d.i.text = true
	case op >= 0xB8 && op <= 0xBF:
		if d.large {
			d.at += 8
			return
		}
		d.immediate()
	case op == 0xC2:
		d.at += 2
		d.i.kind = traceReturn
	case op == 0xC3:
		d.i.kind = traceReturn
	case op == 0xE8:
		d.branch(traceCall, 4)
	case op == 0xE9:
		d.branch(traceJump, 4)
	case op == 0xEB:
		d.branch(traceJump, 1)
	case op == 0xCC || op >= 0xE0 && op <= 0xE3:
		if op != 0xCC {
			d.at++
		}
		d.i.kind = traceOther
	case op == 0xF6 || op == 0xF7:
		d.operand()
		if d.modrm>>3&7 < 2 { // TEST
			if op == 0xF6 {
				d.at++
				return
			}
			d.immediate()
		}
	case op == 0xFF:
		d.operand()
		if r := d.modrm >> 3 & 7; r >= 2 && r <= 5 {
			d.i.kind, d.i.call = traceOther, r == 2
		}
	default:
		d.bad = true
	}
}

// operand reads an operand in a register or in memory.
func (d *traceDecoder) operand() {
	d.modrm = d.next()
	mod, register := d.modrm>>6, int(d.modrm&7)
	if mod == 3 {
		return
	}
	absolute := mod == 0 && register == 5 // relative to pc
	d.i.base = register | d.topBase
	if register == 4 {
		s := d.next()
		if index := int(s>>3&7) | d.topIdx; index != 4 {
			d.i.index = index
		}
		d.i.base = int(s&7) | d.topBase
		absolute = mod == 0 && s&7 == 5
	}
	switch {
	case absolute:
		d.i.base = traceNone
		d.at += 4
	case mod == 1:
		d.at++
	case mod == 2:
		d.at += 4
	}
}

// immediate skips a number of the size of the operands, at most four bytes.
func (d *traceDecoder) immediate() {
	if d.small {
		d.at += 2
		return
	}
	d.at += 4
}

// branch reads the distance to a target.
func (d *traceDecoder) branch(kind, size int) {
	d.i.kind, d.relative = kind, true
	if d.at+size > len(d.b) {
		d.bad = true
		return
	}
	if size == 1 {
		d.i.target = uint64(int8(d.b[d.at]))
	} else {
		d.i.target = uint64(int32(binary.LittleEndian.Uint32(d.b[d.at:])))
	}
	d.at += size
}

// traceTaken tells whether a branch on the condition is taken with these flags.
func traceTaken(condition byte, flags uint64) bool {
	carry, parity, zero := flags&1 != 0, flags>>2&1 != 0, flags>>6&1 != 0
	sign, overflow := flags>>7&1 != 0, flags>>11&1 != 0
	var taken bool
	switch condition >> 1 {
	case 0:
		taken = overflow
	case 1:
		taken = carry
	case 2:
		taken = zero
	case 3:
		taken = carry || zero
	case 4:
		taken = sign
	case 5:
		taken = parity
	case 6:
		taken = sign != overflow
	case 7:
		taken = zero || sign != overflow
	}
	return taken != (condition&1 != 0)
}
