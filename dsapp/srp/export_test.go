package srp

// PrimeOf returns N.
func PrimeOf(p *Profile) []byte { return p.prime }
