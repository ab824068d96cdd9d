// Package figures is what benchmarks share that write their figures into a document: the
// statistics, the machine, and the marks between which a table is replaced.
package figures

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Quartiles are the median of some numbers and the bounds of their middle half.
type Quartiles struct{ Low, Median, High float64 }

// QuartilesOf sorts the numbers, of which there must be at least one.
func QuartilesOf(x []float64) Quartiles {
	slices.Sort(x)
	return Quartiles{at(x, 0.25), at(x, 0.5), at(x, 0.75)}
}

// Quantile sorts the numbers, of which there must be at least one, and returns the value below
// which a share q of them is.
func Quantile(x []float64, q float64) float64 {
	slices.Sort(x)
	return at(x, q)
}

func at(sorted []float64, q float64) float64 {
	p := q * float64(len(sorted)-1)
	i := int(p)
	j := min(i+1, len(sorted)-1)
	return sorted[i] + (p-float64(i))*(sorted[j]-sorted[i])
}

// Spread is the middle half of ratios.
func (q Quartiles) Spread() string { return Ratio(q.Low) + "–" + Ratio(q.High) }

func (q Quartiles) String() string { return Ratio(q.Median) + " (" + q.Spread() + ")" }

// Ratio formats a ratio.
func Ratio(x float64) string {
	if x < 0.3 {
		return fmt.Sprintf("%.3f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// Markdown returns a table, with columns of equal width if it is for a terminal. The first row
// is its head.
func Markdown(rows [][]string, align bool) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var text strings.Builder
	line := func(row []string) {
		for i, cell := range row {
			if align {
				cell += strings.Repeat(" ", widths[i]-len([]rune(cell)))
			}
			text.WriteString("| " + cell + " ")
		}
		text.WriteString("|\n")
	}
	line(rows[0])
	text.WriteString(strings.Repeat("|---", len(widths)) + "|\n")
	for _, row := range rows[1:] {
		line(row)
	}
	return text.String()
}

// Processor returns the name of the processor, with its family and model if they are known.
func Processor() string {
	cpu := Field("/proc/cpuinfo", "model name")
	if cpu == "" {
		cpu = runtime.GOARCH
	}
	if family := Field("/proc/cpuinfo", "cpu family"); family != "" {
		cpu += fmt.Sprintf(" (family %s, model %s)", family, Field("/proc/cpuinfo", "model"))
	}
	return cpu
}

// Field returns the first value of a name in a file of lines "name: value", or "".
func Field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if n, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(n) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Load returns the load average of the last minute, or 0.
func Load() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	x, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return x
}

// Replace returns the document with another text between two lines.
func Replace(document, begin, end, text string) (string, error) {
	before, rest, ok := strings.Cut(document, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("it has no lines %q and %q", begin, end)
	}
	return before + begin + "\n" + text + "\n" + end + after, nil
}

// Rewrite replaces what is between two lines in a file.
func Rewrite(file, begin, end, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	document, err := Replace(string(old), begin, end, text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(document), 0o644)
}
