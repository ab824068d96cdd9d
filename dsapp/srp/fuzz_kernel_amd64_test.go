//go:build !purego

package srp

import "math/big"

func (k *ifma) bound() *big.Int          { return new(big.Int).Lsh(fromDigits(k.n), 1) }
func (k *ifma) raw(x *big.Int) element   { return k.toDigits(x) }
func (k *ifma) value(x element) *big.Int { return fromDigits(x) }

var _ redundant = (*ifma)(nil)
