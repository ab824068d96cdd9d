//go:build amd64 && !purego

package srp

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestAssembly: only arguments and constants make addresses and decide where to go
// on. Nothing does that was read from an element or a table, and no digit.
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

// TestAssemblyFaults: the check passes what the assembly needs, and finds what it
// is for, alone and in each of the routines.
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

// assemblyValue tells what a value depends on.
type assemblyValue int

const (
	assemblySecret  assemblyValue = iota // perhaps on a secret
	assemblyPublic                       // on lengths and constants alone
	assemblyPointer                      // on an argument that is an address, and lengths
)

var (
	assemblyRoutine  = regexp.MustCompile(`·\w+`)
	assemblyRegister = regexp.MustCompile(`^([A-D]X|[SD]I|BP|R[89]|R1[0-5])$`)
	assemblyArgument = regexp.MustCompile(`^(\w+)\+\d+\(FP\)$`)
	// Each word on the stack has one name. That arguments have one go vet checks.
	assemblySlot = regexp.MustCompile(`^(8|16|24|32|40)?\(SP\)$`)
	// Constants are those of the file itself.
	assemblyConstant = regexp.MustCompile(`^\w+<>\+\d+\(SB\)$`)
	assemblyMemory   = regexp.MustCompile(`^-?\d*\((\w+)\)(?:\((\w+)\*[1248]\))?$`)
	// assemblyPlain are instructions that change nothing but their last operand, and
	// flags. Their time does not depend on what they compute with.
	assemblyPlain = regexp.MustCompile(`^(MOV(Q|L|OA|OU)|MULXQ|IMULQ|AD[CO]XQ|(ADD|ADC|SUB|SBB|AND|OR|SHL|SHR|XOR)Q|XORL|DECQ|CMPQ|TESTQ` +
		`|K(MOVB|SHIFTLB|XORW)|P(ADDL|AND|CMPEQL|OR|SHUFD|UNPCK[LH]QDQ|XOR)` +
		`|V(ALIGNQ|MOVDQA64(\.Z)?|MOVDQU64|MOVQ|ZEROUPPER)|VP(ADDQ|ANDQ|BROADCASTQ|CMPUQ|ERMI2Q|INSRQ|MADD52[LH]UQ|ORQ|SRLQ|SUBQ|TERNLOGQ|XORQ)|RET|PCALIGN)$`)
	assemblyJump = regexp.MustCompile(`^J(B|NE|EQ|NZ)$`)
)

// assemblyState is what is known between two instructions: of registers, of
// arguments and of what is kept on the stack. What is not there may be secret.
type assemblyState map[string]assemblyValue

// argument returns what the values of an argument depend on.
func argument(name string) assemblyValue {
	switch name {
	case "z", "x", "y", "prime", "modulus", "scratch", "entries", "window":
		return assemblyPointer
	case "times", "blocks", "words":
		return assemblyPublic
	}
	return assemblySecret
}

// of returns what an operand depends on.
func (s assemblyState) of(operand string) assemblyValue {
	if strings.HasPrefix(operand, "$") {
		return assemblyPublic
	}
	v, ok := s[operand]
	if m := assemblyArgument.FindStringSubmatch(operand); m != nil && !ok {
		return argument(m[1])
	}
	return v
}

// assemblyFaults returns the lines of assembly at which an address or a jump may
// depend on a secret, or whose effect it does not know.
func assemblyFaults(text string) (faults []string) {
	for _, routine := range strings.Split("\n"+text, "\nTEXT ")[1:] {
		var lines []string
		for _, line := range strings.Split(routine, "\n")[1:] {
			line, _, _ = strings.Cut(line, "//")
			if line = strings.Join(strings.Fields(line), " "); line != "" {
				lines = append(lines, line)
			}
		}
		labels := map[string]assemblyState{}
		found, changed := routineFaults(lines, labels)
		for changed {
			found, changed = routineFaults(lines, labels)
		}
		faults = append(faults, found...)
	}
	return faults
}

// routineFaults goes through a routine once. It tells whether less is known at
// labels than before, because of jumps to them.
func routineFaults(lines []string, labels map[string]assemblyState) (faults []string, changed bool) {
	state, public := assemblyState{}, false
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, " ")
		label, isLabel := strings.CutSuffix(line, ":")
		switch {
		case isLabel:
			if _, ok := labels[label]; !ok {
				labels[label], changed = maps.Clone(state), true
			}
			changed = labels[label].meet(state) || changed
			state, public = maps.Clone(labels[label]), false
		case assemblyJump.MatchString(name):
			at, ok := labels[rest]
			if !ok || !public {
				faults = append(faults, line+": decided by what may be secret, or to an unknown place")
			}
			changed = ok && at.meet(state) || changed
		default:
			var fault string
			if fault, public = state.instruction(name, strings.Split(rest, ", ")); fault != "" {
				faults = append(faults, line+": "+fault)
			}
		}
	}
	return faults, changed
}

// meet takes for secret what the other state does not agree on, and tells whether
// that was news.
func (s assemblyState) meet(o assemblyState) (changed bool) {
	for _, known := range []assemblyState{s, o} {
		for operand := range known {
			if v := s.of(operand); v != o.of(operand) && v != assemblySecret {
				s[operand], changed = assemblySecret, true
			}
		}
	}
	return changed
}

// instruction takes an instruction. It tells what is wrong with it, and whether the
// flags that it leaves are public.
func (s assemblyState) instruction(name string, operands []string) (fault string, public bool) {
	if !assemblyPlain.MatchString(name) {
		fault = "not known to the check"
	}
	for _, operand := range operands {
		m := assemblyMemory.FindStringSubmatch(operand)
		switch {
		case !strings.Contains(operand, "("):
		case assemblyArgument.MatchString(operand), assemblySlot.MatchString(operand), assemblyConstant.MatchString(operand):
		case m == nil || s.of(m[1]) != assemblyPointer || m[2] != "" && s.of(m[2]) != assemblyPublic:
			fault = "address that may depend on a secret"
		}
	}

	last := operands[len(operands)-1]
	source, target := s.of(operands[0]), s.of(last)
	result := assemblySecret
	switch name {
	case "CMPQ", "TESTQ":
		return fault, source != assemblySecret && target != assemblySecret
	case "MOVQ":
		result = source
	case "MOVL":
		if strings.HasPrefix(operands[0], "$") {
			result = assemblyPublic
		}
	case "XORL":
		if operands[0] == last {
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
		delete(s, operands[1])
	}
	kept := assemblyRegister.MatchString(last)
	if assemblySlot.MatchString(last) || assemblyArgument.MatchString(last) {
		kept = true
		if !slices.Contains([]string{"MOVQ", "DECQ", "ADDQ", "SUBQ"}, name) {
			fault = "more than one word on the stack"
		}
	}
	if last == "SP" {
		fault = "the stack moves"
	}
	if kept {
		s[last] = result
	}
	return fault, result != assemblySecret && (name == "DECQ" || name == "ADDQ" || name == "SUBQ")
}
