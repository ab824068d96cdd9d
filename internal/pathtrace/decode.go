//go:build linux && amd64

package pathtrace

import (
	"encoding/binary"
	"errors"
)

// kind says where the processor continues after an instruction.
type kind int

const (
	sequential    kind = iota // at the following instruction
	branch                    // at target or at the following instruction, depending on the flags
	jump                      // at target
	call                      // at target; the function returns to the following instruction
	ret                       // at the caller
	indirect                  // at an address from a register or memory, or in the kernel
	allocatorCall             // as call, to the memory allocator of Go; set by tracer.instruction
)

// noRegister stands for the absence of a base or index register.
const noRegister = -1

// instruction is a decoded machine instruction.
type instruction struct {
	size      int // bytes
	kind      kind
	condition byte   // of a branch, as the processor numbers them
	target    uint64 // of a branch, jump or call
	// indirectCall is true for a call of kind indirect.
	indirectCall bool
	// skippable is true for a call to a function that Config.Skip matches; set by
	// tracer.instruction.
	skippable bool
	// base and index are the numbers of the registers that the address of the memory
	// operand depends on.
	base, index int
	// usesRSIAndRDI is true for the string instructions, such as MOVS, whose operands
	// are at RSI and RDI.
	usesRSIAndRDI bool
}

// maxInstructionSize is the size of the longest instruction in bytes.
const maxInstructionSize = 15

var errUnknownInstruction = errors.New("instruction that the decoder does not know")

// decode decodes the instruction at the beginning of code. The process has it at the
// address pc, which relative targets count from. The format is described in the
// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapter 2
// and appendix A.
func decode(code []byte, pc uint64) (instruction, error) {
	d := decoder{code: code, out: instruction{base: noRegister, index: noRegister}}
	d.decode()
	if d.failed || d.at > len(code) {
		return instruction{}, errUnknownInstruction
	}
	d.out.size = d.at
	if d.relative {
		d.out.target += pc + uint64(d.at)
	}
	return d.out, nil
}

// decoder is the state of one call of decode.
type decoder struct {
	code []byte
	at   int // number of bytes read
	out  instruction
	// operand16 and operand64 are true if a prefix selects operands of 16 or 64 bits.
	operand16, operand64 bool
	// highBase and highIndex are 8 or 0: prefixes add them to the numbers of registers.
	highBase, highIndex int
	modRM               byte
	relative, failed    bool
}

func (d *decoder) next() byte {
	d.at++
	if d.at > len(d.code) {
		d.failed = true
		return 0
	}
	return d.code[d.at-1]
}

// invertedRegisterBits reads highIndex and highBase from a byte of a VEX or EVEX prefix.
func (d *decoder) invertedRegisterBits(b byte) {
	d.highIndex, d.highBase = int(^b>>6&1)<<3, int(^b>>5&1)<<3
}

// decode reads one instruction.
func (d *decoder) decode() {
	op := d.next()
	for prefix := true; prefix; {
		switch op {
		case 0x66:
			d.operand16 = true
			op = d.next()
		case 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0xF0, 0xF2, 0xF3:
			op = d.next()
		default:
			prefix = false
		}
	}
	if op>>4 == 4 { // REX
		d.operand64 = op&8 != 0
		d.highIndex, d.highBase = int(op>>1&1)<<3, int(op&1)<<3
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
		d.invertedRegisterBits(p)
		d.next()
		d.vector(p&31, d.next())
	case 0x62:
		p := d.next()
		d.invertedRegisterBits(p)
		d.next()
		d.next()
		d.vector(p&7, d.next())
	default:
		d.oneByte(op)
	}
}

// vector reads an instruction of an opcode map that consists mostly of vector
// instructions: 1 is 0F, 2 is 0F38, 3 is 0F3A.
func (d *decoder) vector(m, op byte) {
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
		// Gather and scatter instructions take addresses from vectors.
		d.failed = d.failed || op >= 0x90 && op <= 0x93 || op >= 0xA0 && op <= 0xA3 || op == 0xC6 || op == 0xC7
		d.operand()
	case 3:
		d.operand()
		d.at++
	default:
		d.failed = true
	}
}

// twoBytes reads an instruction with the opcode 0F op.
func (d *decoder) twoBytes(op byte) {
	switch {
	case op == 0x05 || op == 0x31 || op == 0xA2 || op >= 0xC8 && op <= 0xCF:
		// SYSCALL, RDTSC, CPUID, BSWAP
	case op == 0x77:
		// EMMS
	case op >= 0x80 && op <= 0x8F:
		d.relativeTarget(branch, 4)
		d.out.condition = op & 15
	case op == 0x18 || op == 0x1E || op == 0x1F:
		// Hints and no-operations do not access their operand.
		d.operand()
		d.out.base, d.out.index = noRegister, noRegister
	case op >= 0x70 && op <= 0x73 || op == 0xA4 || op == 0xAC || op == 0xBA || op == 0xC2 || op >= 0xC4 && op <= 0xC6:
		d.operand()
		d.at++
	case op == 0x01 || op == 0x0B || op < 0x10 && op != 0x0D || op >= 0x24 && op <= 0x27 || op >= 0x30 && op <= 0x37 || op == 0xA0 || op == 0xA1 || op == 0xA8 || op == 0xA9 || op == 0xAA || op == 0xFF:
		if op == 0x01 && d.at < len(d.code) && d.code[d.at] == 0xD0 || op == 0x01 && d.at < len(d.code) && d.code[d.at] == 0xF9 {
			d.at++ // XGETBV, RDTSCP
			return
		}
		d.failed = true
	default:
		d.operand()
	}
}

// oneByte reads an instruction with the opcode op.
func (d *decoder) oneByte(op byte) {
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
			d.failed = true
		}
	case op < 0x60: // PUSH, POP
	case op == 0x63 || op >= 0x84 && op <= 0x8C || op == 0x8E || op == 0x8F || op >= 0xD0 && op <= 0xD3 || op == 0xFE:
		d.operand()
	case op == 0x8D: // LEA does not access memory
		d.operand()
		d.out.base, d.out.index = noRegister, noRegister
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
		d.relativeTarget(branch, 1)
		d.out.condition = op & 15
	case op >= 0x90 && op <= 0x99 || op == 0x9B || op == 0x9E || op == 0x9F || op == 0xC9 || op >= 0xF8 && op <= 0xFD || op == 0xF5:
	case op >= 0xA4 && op <= 0xA7 || op >= 0xAA && op <= 0xAF:
		d.out.usesRSIAndRDI = true
	case op >= 0xB8 && op <= 0xBF:
		if d.operand64 {
			d.at += 8
			return
		}
		d.immediate()
	case op == 0xC2:
		d.at += 2
		d.out.kind = ret
	case op == 0xC3:
		d.out.kind = ret
	case op == 0xE8:
		d.relativeTarget(call, 4)
	case op == 0xE9:
		d.relativeTarget(jump, 4)
	case op == 0xEB:
		d.relativeTarget(jump, 1)
	case op == 0xCC || op >= 0xE0 && op <= 0xE3:
		if op != 0xCC {
			d.at++
		}
		d.out.kind = indirect
	case op == 0xF6 || op == 0xF7:
		d.operand()
		if d.modRM>>3&7 < 2 { // TEST
			if op == 0xF6 {
				d.at++
				return
			}
			d.immediate()
		}
	case op == 0xFF:
		d.operand()
		if r := d.modRM >> 3 & 7; r >= 2 && r <= 5 {
			d.out.kind, d.out.indirectCall = indirect, r == 2
		}
	default:
		d.failed = true
	}
}

// operand reads the ModRM byte and what belongs to it: an operand in a register or in
// memory.
func (d *decoder) operand() {
	d.modRM = d.next()
	mod, register := d.modRM>>6, int(d.modRM&7)
	if mod == 3 {
		return
	}
	absolute := mod == 0 && register == 5 // at a constant distance
	d.out.base = register | d.highBase
	if register == 4 {
		s := d.next()
		if index := int(s>>3&7) | d.highIndex; index != 4 {
			d.out.index = index
		}
		d.out.base = int(s&7) | d.highBase
		absolute = mod == 0 && s&7 == 5
	}
	switch {
	case absolute:
		d.out.base = noRegister
		d.at += 4
	case mod == 1:
		d.at++
	case mod == 2:
		d.at += 4
	}
}

// immediate skips a constant of the size of the operands, at most four bytes.
func (d *decoder) immediate() {
	if d.operand16 {
		d.at += 2
		return
	}
	d.at += 4
}

// relativeTarget reads the distance to the target of a branch, jump or call.
func (d *decoder) relativeTarget(k kind, size int) {
	d.out.kind, d.relative = k, true
	if d.at+size > len(d.code) {
		d.failed = true
		return
	}
	if size == 1 {
		d.out.target = uint64(int8(d.code[d.at]))
	} else {
		d.out.target = uint64(int32(binary.LittleEndian.Uint32(d.code[d.at:])))
	}
	d.at += size
}

// taken reports whether a branch on a condition is taken with these flags.
func taken(condition byte, flags uint64) bool {
	carry, parity, zero := flags&1 != 0, flags>>2&1 != 0, flags>>6&1 != 0
	sign, overflow := flags>>7&1 != 0, flags>>11&1 != 0
	var holds bool
	switch condition >> 1 {
	case 0:
		holds = overflow
	case 1:
		holds = carry
	case 2:
		holds = zero
	case 3:
		holds = carry || zero
	case 4:
		holds = sign
	case 5:
		holds = parity
	case 6:
		holds = sign != overflow
	case 7:
		holds = zero || sign != overflow
	}
	return holds != (condition&1 != 0)
}
