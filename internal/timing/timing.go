// Package timing tells whether calls take the same time, on machines that have other
// things to do.
package timing

import (
	"slices"
	"testing"
	"time"
)

// Sample is one way to make a call. Prepare is not measured; it may be nil.
type Sample struct {
	Name    string
	Prepare func()
	Call    func()
}

// Same fails if the times of the calls differ by more than the factor tolerance. Calls
// of one round are compared with each other, as what disturbs one disturbs the others
// alike; rounds are added until their medians agree. No other test may run beside it.
func Same(t *testing.T, tolerance float64, samples []Sample) {
	t.Helper()
	const rounds, tries = 41, 8
	if raceDetector {
		// It slows down some code more than other code.
		tolerance = max(tolerance, 1.5)
	}
	ratios := make([][]float64, len(samples)) // of the time to the first sample's
	medians := make([]float64, len(samples))
	for range tries {
		for round := range rounds {
			times := make([]float64, len(samples))
			for i := range samples {
				i = (i + round) % len(samples)
				if samples[i].Prepare != nil {
					samples[i].Prepare()
				}
				start := time.Now()
				samples[i].Call()
				times[i] = float64(time.Since(start))
			}
			for i := range samples {
				ratios[i] = append(ratios[i], times[i]/times[0])
			}
		}
		for i, r := range ratios {
			slices.Sort(r)
			medians[i] = r[len(r)/2]
		}
		if slices.Max(medians)/slices.Min(medians) <= tolerance {
			return
		}
	}
	for i, m := range medians {
		t.Errorf("%s takes %.2f times as long as %s", samples[i].Name, m, samples[0].Name)
	}
}
