//go:build amd64 && !purego && !race

package srp

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestAssembly: addresses and jumps depend on arguments and constants only, not on words of
// elements or tables, nor on digits of exponents.
func TestAssembly(t *testing.T) {
	t.Parallel()
	for file, routines := range map[string]int{"adx_amd64.s": 3, "ifma_amd64.s": 3*len(ifmaSizes) + 1} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if n := strings.Count(text, "\nTEXT "); n != routines {
			t.Errorf("%s has %d routines, want %d", file, n, routines)
		}
		for _, fault := range assemblyFaults(text) {
			t.Errorf("%s: %s", file, fault)
		}
	}
}

// TestAssemblyFaults: assemblyFaults accepts what the assembly needs, and finds addresses
// and jumps that depend on secrets, in short examples and in each of the routines.
func TestAssemblyFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"MOVQ x+8(FP), SI\n MULXQ 8(SI), AX, CX":                                          0,
		"MOVQ y+16(FP), BP\n MOVQ BP, SI\n MOVQ (SI), R8":                                 0,
		"MOVQ z+0(FP), DI\n MOVQ DI, 40(SP)\n MOVQ 40(SP), R8\n MOVQ AX, 8(R8)":           0,
		"XORL CX, CX\n l:\n ADDQ $0x04, CX\n CMPQ CX, $0x28\n JB l":                       0,
		"MOVL $0x05, CX\n l:\n SUBQ $0x02, CX\n JNE l":                                    0,
		"MOVQ y+16(FP), SI\n XORL CX, CX\n VPBROADCASTQ 8(SI)(CX*8), Z1":                  0,
		"l:\n DECQ times+32(FP)\n JNZ l":                                                  0,
		"MOVQ blocks+48(FP), AX\n SHLQ $0x06, AX\n ADDQ x+8(FP), AX\n MOVQ (AX), CX":      0,
		"MOVQ x+8(FP), SI\n MOVQ SI, 24(SP)\n l:\n ADDQ $8, SI\n CMPQ SI, 24(SP)\n JEQ l": 0,
		"VMOVDQU64 ifmaInterleaveLow<>+0(SB), Z1":                                         0,
		"MULXQ 8(AX), AX, CX": 1,
		"MOVQ x+8(FP), SI\n MOVQ digit+16(FP), AX\n MOVQ (SI)(AX*8), CX":                      1,
		"MOVQ x+8(FP), SI\n MOVQ (SI), DI\n MOVQ (DI), AX":                                    1,
		"MOVQ x+8(FP), SI\n ADDQ DX, SI\n MOVQ (SI), AX":                                      1,
		"MOVQ x+8(FP), SI\n ANDQ $0x07, SI\n MOVQ (SI), AX":                                   1,
		"MOVQ x+8(FP), SI\n XORL CX, CX\n VMOVQ X1, CX\n MOVQ (SI)(CX*8), AX":                 1,
		"MOVQ x+8(FP), DX\n MULXQ (DX), DX, AX\n MOVQ (DX), AX":                               1,
		"MOVQ x+8(FP), SI\n MOVQ SI, 8(SP)\n MOVQ AX, 8(SP)\n MOVQ 8(SP), SI\n MOVQ (SI), AX": 1,
		"MOVQ AX, x+8(FP)\n MOVQ x+8(FP), SI\n MOVQ (SI), AX":                                 1,
		"MOVQ x+8(FP), SI\n l:\n MOVQ (SI), AX\n MOVQ AX, SI\n DECQ times+32(FP)\n JNE l":     1, // in the second turn
		"l:\n ADDQ AX, AX\n JCS l":                                                            1,
		"l:\n SUBQ $0x02, R8\n JNE l":                                                         1,
		"XORL CX, CX\n l:\n CMPQ CX, $0x28\n ADCQ AX, AX\n JB l":                              1,
		"l:\n DECQ digit+16(FP)\n JNE l":                                                      1,
		"DECQ times+32(FP)\n JNE elsewhere":                                                   1,
		"JMP AX":                                                                              1,
		"CALL ·ifmaWipe(SB)":                                                                  1,
		"CMOVQCS AX, CX":                                                                      1,
		"DIVQ CX":                                                                             1,
		"MOVQ x+8(FP), SI\n VPGATHERQQ (SI)(Z2*8), K1, Z3":                                    1,
		"MOVQ x+8(FP), SI\n VPADDQ (SI)(Z2*8), Z3, Z3":                                        1,
		"VMOVDQU64 elsewhere+0(SB), Z1":                                                       1,
		"MOVQ AX, 4(SP)":                                                                      1,
		"MOVQ x+8(FP), SP":                                                                    1,
	} {
		if got := assemblyFaults("TEXT ·routine(SB), NOSPLIT, $0\n " + text + "\n RET\n"); len(got) != want {
			t.Errorf("%q: %q", text, got)
		}
	}

	b, err := os.ReadFile("ifma_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	routines := strings.SplitAfter(regexp.MustCompile(`[ \t]+`).ReplaceAllString(string(b), " "), "\n RET\n")
	for _, c := range []struct{ name, routine, old, changed string }{
		{"an entry loaded alone", "Read", "TERNLOGQ $0xf8, (SI)", "TERNLOGQ   $0xf8, (SI)(AX*8)"},
		{"an entry found by its number", "Read", "VPBROADCASTQ AX, Z31", "IMULQ $0x140, AX\n ADDQ AX, SI"},
		{"a jump on a digit", "Read", "VPBROADCASTQ AX, Z31", "TESTQ AX, AX\n JNZ done\n VPXORQ Z0, Z0, Z0\ndone:"},
		{"a row chosen by a digit", "Product", "XORL CX, CX", "MOVQ R9, CX"},
		{"a row chosen by a digit", "Square", "XORL CX, CX", "MOVQ R9, CX"},
		{"rows up to a digit", "Product", "CMPQ CX, $", "CMPQ CX, R9 //"},
		{"rows up to a digit", "Square", "TESTQ $0x00000004, CX", "TESTQ R9, CX"},
		{"squares up to a digit", "Square", "DECQ times+32(FP)", "DECQ R9"},
	} {
		found := 0
		for _, text := range routines {
			if !strings.Contains(text, "TEXT ·ifma"+c.routine) {
				continue
			}
			changed := strings.Replace(text, c.old, c.changed, 1)
			if changed == text || len(assemblyFaults(changed)) == 0 {
				t.Errorf("%s is not found in %s", c.name, assemblyRoutine.FindString(text))
			}
			found++
		}
		if found != len(ifmaSizes) {
			t.Errorf("%s: %d routines", c.name, found)
		}
	}
}

// assemblyValue says what a value may depend on.
type assemblyValue int

const (
	assemblySecret  assemblyValue = iota // secrets
	assemblyPublic                       // only lengths and constants
	assemblyPointer                      // only an argument that is an address, and lengths
)

var (
	assemblyRoutine  = regexp.MustCompile(`·\w+`)
	assemblyRegister = regexp.MustCompile(`^([A-D]X|[SD]I|BP|R[89]|R1[0-5])$`)
	assemblyArgument = regexp.MustCompile(`^(\w+)\+\d+\(FP\)$`)
	// Each variable on the stack has one word and one name. For arguments, go vet checks
	// that.
	assemblySlot = regexp.MustCompile(`^(8|16|24|32|40)?\(SP\)$`)
	// Constants are those of the same file.
	assemblyConstant = regexp.MustCompile(`^\w+<>\+\d+\(SB\)$`)
	assemblyMemory   = regexp.MustCompile(`^-?\d*\((\w+)\)(?:\((\w+)\*[1248]\))?$`)
	// assemblyPlain matches instructions that change only their last operand and flags,
	// and whose time does not depend on their operands.
	assemblyPlain = regexp.MustCompile(`^(MOV(Q|L|OA|OU)|MULXQ|IMULQ|AD[CO]XQ|(ADD|ADC|SUB|SBB|AND|OR|SHL|SHR|XOR)Q|XORL|DECQ|CMPQ|TESTQ` +
		`|K(MOVB|SHIFTLB|XORW)|P(ADDL|AND|CMPEQL|OR|SHUFD|UNPCK[LH]QDQ|XOR)` +
		`|V(ALIGNQ|MOVDQA64(\.Z)?|MOVDQU64|MOVQ|ZEROUPPER)|VP(ADDQ|ANDQ|BROADCASTQ|CMPUQ|ERMI2Q|INSRQ|MADD52[LH]UQ|ORQ|SRLQ|SUBQ|TERNLOGQ|XORQ)|RET|PCALIGN)$`)
	assemblyJump = regexp.MustCompile(`^J(B|NE|EQ|NZ)$`)
)

// assemblyOperand is an operand of an instruction.
type assemblyOperand struct {
	text string
	// constant is true for an immediate, argument is the name of an argument.
	constant bool
	argument string
	// variable is true for a register, an argument and a word on the stack.
	variable, stack bool
	// memory is true for an operand in memory that is none of these. index may be "". Both
	// are "" if the operand is not understood.
	memory      bool
	base, index string
}

// assemblyInstruction is an instruction, or a label, with the text of its line.
type assemblyInstruction struct {
	line, name         string
	label, plain, jump bool
	operands           []assemblyOperand
}

// parseAssembly returns the instructions of a routine.
func parseAssembly(text string) (all []assemblyInstruction) {
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "//")
		if line = strings.Join(strings.Fields(line), " "); line == "" {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		i := assemblyInstruction{line: line, name: name, plain: assemblyPlain.MatchString(name), jump: assemblyJump.MatchString(name)}
		if i.name, i.label = strings.CutSuffix(line, ":"); !i.label {
			i.name = name
		}
		for text := range strings.SplitSeq(rest, ", ") {
			o := assemblyOperand{text: text, constant: strings.HasPrefix(text, "$"), stack: assemblySlot.MatchString(text)}
			if m := assemblyArgument.FindStringSubmatch(text); m != nil {
				o.argument, o.stack = m[1], true
			}
			o.variable = o.stack || assemblyRegister.MatchString(text)
			o.memory = strings.Contains(text, "(") && !o.stack && !assemblyConstant.MatchString(text)
			if m := assemblyMemory.FindStringSubmatch(text); m != nil && o.memory {
				o.base, o.index = m[1], m[2]
			}
			i.operands = append(i.operands, o)
		}
		all = append(all, i)
	}
	return all
}

// assemblyState is what is known of registers, arguments and words on the stack between
// two instructions. Others may depend on secrets.
type assemblyState map[string]assemblyValue

// of returns what an operand depends on.
func (s assemblyState) of(o assemblyOperand) assemblyValue {
	v, known := s[o.text]
	switch {
	case o.constant:
		return assemblyPublic
	case known:
		return v
	}
	return argumentValue(o.argument)
}

// argumentValue returns what an argument depends on.
func argumentValue(name string) assemblyValue {
	switch name {
	case "z", "x", "y", "prime", "modulus", "scratch", "entries", "window":
		return assemblyPointer
	case "times", "blocks", "words":
		return assemblyPublic
	}
	return assemblySecret
}

// assemblyFaults returns the lines of assembly in which an address or a jump may depend on
// a secret, and those that it does not understand.
func assemblyFaults(text string) (faults []string) {
	for _, routine := range strings.Split("\n"+text, "\nTEXT ")[1:] {
		_, body, _ := strings.Cut(routine, "\n")
		instructions := parseAssembly(body)
		labels := map[string]assemblyState{}
		found, changed := routineFaults(instructions, labels)
		for changed {
			found, changed = routineFaults(instructions, labels)
		}
		faults = append(faults, found...)
	}
	return faults
}

// routineFaults goes through a routine once. It reports whether jumps have reduced what is
// known at labels.
func routineFaults(instructions []assemblyInstruction, labels map[string]assemblyState) (faults []string, changed bool) {
	state, public := assemblyState{}, false
	for _, i := range instructions {
		switch {
		case i.label:
			if _, ok := labels[i.name]; !ok {
				labels[i.name], changed = maps.Clone(state), true
			}
			changed = labels[i.name].meet(state) || changed
			state, public = maps.Clone(labels[i.name]), false
		case i.jump:
			at, ok := labels[i.operands[0].text]
			if !ok || !public {
				faults = append(faults, i.line+": the jump may depend on a secret, or goes to an unknown place")
			}
			changed = ok && at.meet(state) || changed
		default:
			var fault string
			if fault, public = state.execute(i); fault != "" {
				faults = append(faults, i.line+": "+fault)
			}
		}
	}
	return faults, changed
}

// meet reduces s to what the other state agrees on. It reports whether that changed s.
func (s assemblyState) meet(o assemblyState) (changed bool) {
	of := func(s assemblyState, name string) assemblyValue {
		if v, ok := s[name]; ok {
			return v
		}
		argument, _, _ := strings.Cut(name, "+")
		return argumentValue(argument)
	}
	for _, known := range []assemblyState{s, o} {
		for name := range known {
			if v := of(s, name); v != of(o, name) && v != assemblySecret {
				s[name], changed = assemblySecret, true
			}
		}
	}
	return changed
}

// execute changes the state as an instruction does. It returns what is wrong with the
// instruction, and whether the flags are public after it.
func (s assemblyState) execute(i assemblyInstruction) (fault string, public bool) {
	if !i.plain {
		fault = "unknown instruction"
	}
	for _, o := range i.operands {
		if o.memory && (o.base == "" || s[o.base] != assemblyPointer || o.index != "" && s[o.index] != assemblyPublic) {
			fault = "the address may depend on a secret"
		}
	}

	first, last := i.operands[0], i.operands[len(i.operands)-1]
	source, target := s.of(first), s.of(last)
	result := assemblySecret
	switch i.name {
	case "CMPQ", "TESTQ":
		return fault, source != assemblySecret && target != assemblySecret
	case "MOVQ":
		result = source
	case "MOVL":
		if first.constant {
			result = assemblyPublic
		}
	case "XORL":
		if first == last {
			result = assemblyPublic
		}
	case "DECQ":
		result = target
	case "ADDQ", "SUBQ":
		switch {
		case source == assemblyPublic:
			result = target
		case target == assemblyPublic:
			result = source
		}
	case "SHLQ", "SHRQ", "ANDQ":
		if source == assemblyPublic && target == assemblyPublic {
			result = assemblyPublic
		}
	case "MULXQ":
		delete(s, i.operands[1].text)
	}
	if last.stack && !slices.Contains([]string{"MOVQ", "DECQ", "ADDQ", "SUBQ"}, i.name) {
		fault = "more than one word on the stack"
	}
	if last.text == "SP" {
		fault = "the stack moves"
	}
	if last.variable {
		s[last.text] = result
	}
	return fault, result != assemblySecret && (i.name == "DECQ" || i.name == "ADDQ" || i.name == "SUBQ")
}
