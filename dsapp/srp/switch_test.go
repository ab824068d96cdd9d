//go:build amd64 && !purego && !race

package srp

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

// switchMarker is the environment variable that is set in the processes that TestSwitches
// starts. It also begins the lines in which they print the selected kernels.
const switchMarker = "SRP_TEST_SWITCHES"

// TestSwitches: an operator can disable kernels with GODEBUG. The kernels that are selected
// then compute the test vectors.
func TestSwitches(t *testing.T) {
	t.Parallel()
	if os.Getenv(switchMarker) != "" {
		for _, p := range profiles {
			fmt.Println(switchMarker, p.name, p.Kernel())
		}
		return
	}

	withIFMA := cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512IFMA && cpu.X86.HasBMI2
	withADX := cpu.X86.HasADX && cpu.X86.HasBMI2
	for feature, has := range map[string]bool{"AVX-512 IFMA": withIFMA, "ADX and BMI2": withADX} {
		if !has {
			t.Logf("NOT CHECKED: this processor has no %s to be switched off", feature)
		}
	}
	// The kernels for 2048 bits and for more.
	plain := [2]string{"portable", "radix64"}
	second := plain
	if withADX {
		second = [2]string{"adx", "adx"}
	}
	first := second
	if withIFMA {
		first = [2]string{"ifma", "ifma"}
	}
	for off, want := range map[string][2]string{
		"":                               first,
		"cpu.avx512ifma=off":             second,
		"cpu.bmi2=off":                   plain,
		"cpu.avx512ifma=off,cpu.adx=off": plain,
	} {
		t.Run("GODEBUG="+off, func(t *testing.T) {
			t.Parallel()
			command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^(TestSwitches|TestSHA256Vectors)$//^as_selected$", "-test.v")
			command.Env = append(os.Environ(), switchMarker+"=1", "GODEBUG="+os.Getenv("GODEBUG")+","+off)
			out, err := command.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			served := map[string]string{}
			for line := range strings.Lines(string(out)) {
				if f := strings.Fields(line); len(f) == 3 && f[0] == switchMarker {
					served[f[1]] = f[2]
				}
			}
			for i, p := range profiles {
				if name := want[min(i, 1)]; served[p.name] != name {
					t.Errorf("%s is served by %q, want %s", p.name, served[p.name], name)
				}
				if !strings.Contains(string(out), "--- PASS: TestSHA256Vectors/"+p.name+"/as_selected") {
					t.Errorf("%s was not compared with its vectors", p.name)
				}
			}
		})
	}
}
