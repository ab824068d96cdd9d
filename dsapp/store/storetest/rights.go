package storetest

import "github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"

func devices() []test {
	return []test{
		{"device: one exchange admits one, without secrets", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.refuseDevice("id-1")
			s.succeed(r)
			got, ok := s.admitDevice("id-1")
			if !ok {
				s.Fatal("refused after an exchange")
			}
			s.same(got, withoutSecrets(r))
			s.refuseDevice("id-1")
			s.succeed(r)
			s.succeed(r)
			for range 2 {
				if _, ok := s.admitDevice("id-1"); !ok {
					s.Fatal("refused after two exchanges")
				}
			}
			s.refuseDevice("id-1")
		}},
		{"device: a failed exchange admits none", func(s *suite) {
			s.fail(s.created("id-1", activation.KindMDL))
			s.refuseDevice("id-1")
		}},
		{"device: affinity admits as many as attempts, besides those given back", func(s *suite) {
			r := s.created("id-1", activation.KindAffinity)
			for range 2 * maxAttempts {
				got, ok := s.admitDevice("id-1")
				if !ok {
					s.Fatal("refused")
				}
				s.same(got, r)
				s.returnDevice("id-1", r.Generation)
			}
			// What was not consumed cannot be returned.
			s.returnDevice("id-1", r.Generation)
			for range maxAttempts {
				if _, ok := s.admitDevice("id-1"); !ok {
					s.Fatal("refused below the limit")
				}
			}
			s.refuseDevice("id-1")
			s.returnDevice("id-1", newGeneration())
			s.returnConfirmation("id-1", r.Generation)
			s.refuseDevice("id-1")
			s.returnDevice("id-1", r.Generation)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("the returned call is refused")
			}
			s.refuseDevice("id-1")
			if _, ok := s.confirm("id-1", 1, activation.KindAffinity); !ok {
				s.Fatal("devices count as final calls")
			}
		}},
		{"device: affinity is never proven, which would give calls back", func(s *suite) {
			r := s.created("id-1", activation.KindAffinity)
			h := newSimulated()
			h.Generation = r.Generation
			s.put("id-1", h)
			_, token, ok := s.take("id-1", maxAttempts)
			if !ok {
				s.Fatal("refused below the limit")
			}
			s.refuseSettle("id-1", settlement(r.Generation, token, true))
			s.refuseSettle("id-1", settlement(r.Generation, token, true))
			for range maxAttempts {
				if _, ok := s.admitDevice("id-1"); !ok {
					s.Fatal("refused below the limit")
				}
			}
			s.refuseDevice("id-1")
		}},
		{"device: no other kind, no unknown identifier", func(s *suite) {
			s.succeed(s.created("id-1", activation.KindStandard))
			s.refuseDevice("id-1")
			s.put("id-2", newSimulated())
			s.take("id-2", maxAttempts)
			s.refuseDevice("id-2")
			s.refuseDevice("id-3")
		}},
		{"device: a returned right can be used again, once", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("refused")
			}
			s.returnDevice("id-1", r.Generation)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("the returned right is refused")
			}
			s.refuseDevice("id-1")
		}},
		{"device: what was not consumed cannot be returned", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.returnDevice("id-1", r.Generation)
			s.refuseDevice("id-1")
			s.succeed(r)
			s.returnDevice("id-1", r.Generation)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("refused")
			}
			s.refuseDevice("id-1")
		}},
		{"device: nothing is returned to another generation or kind", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("refused")
			}
			s.returnDevice("id-1", newGeneration())
			s.refuseDevice("id-1")
			standard := s.created("id-2", activation.KindStandard)
			s.returnDevice("id-2", standard.Generation)
			s.refuseDevice("id-2")
			s.returnDevice("id-3", newGeneration())
			s.absent("id-3")
		}},
	}
}

func confirmations() []test {
	return []test{
		{"confirmation: only after an activation, limited, without secrets", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			if _, ok := s.confirm("id-1", 2, activation.KindMDL); ok {
				s.Fatal("admitted before an activation")
			}
			s.succeed(r)
			for range 2 {
				got, ok := s.confirm("id-1", 2, activation.KindMDL)
				if !ok {
					s.Fatal("refused")
				}
				s.same(got, withoutSecrets(r))
			}
			if got, ok := s.confirm("id-1", 2, activation.KindMDL); ok || got.Facts != nil {
				s.Fatal("admitted beyond the limit")
			}
			if _, ok := s.confirm("id-1", 3, activation.KindMDL); !ok {
				s.Fatal("a refused call was counted")
			}
		}},
		{"confirmation: further activations do not reset the count", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("refused")
			}
			s.succeed(r)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); ok {
				s.Fatal("admitted beyond the limit")
			}
		}},
		{"confirmation: only of the kinds given, and a refusal is not counted", func(s *suite) {
			mdl, standard := s.created("id-1", activation.KindMDL), s.created("id-2", activation.KindStandard)
			s.succeed(mdl)
			s.succeed(standard)
			for _, tt := range []struct {
				identifier string
				kinds      []activation.Kind
				want       bool
			}{
				{"id-1", nil, false},
				{"id-1", []activation.Kind{activation.KindStandard}, false},
				{"id-1", []activation.Kind{activation.KindAffinity, activation.KindSimulated}, false},
				{"id-1", []activation.Kind{activation.KindAffinity, activation.KindMDL}, true},
				{"id-2", []activation.Kind{activation.KindMDL, activation.KindAffinity}, false},
				{"id-2", []activation.Kind{activation.KindStandard}, true},
				{"id-3", []activation.Kind{activation.KindMDL, activation.KindStandard, activation.KindAffinity}, false},
			} {
				if _, ok := s.confirm(tt.identifier, 1, tt.kinds...); ok != tt.want {
					s.Fatalf("%s as %v: %v, want %v", tt.identifier, tt.kinds, ok, tt.want)
				}
			}
		}},
		{"confirmation: affinity needs no activation, and is limited", func(s *suite) {
			r := s.created("id-1", activation.KindAffinity)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); ok {
				s.Fatal("admitted as another kind")
			}
			for range 3 {
				got, ok := s.confirm("id-1", 1, activation.KindMDL, activation.KindAffinity)
				if !ok {
					s.Fatal("refused")
				}
				s.same(got, r)
				if _, ok := s.confirm("id-1", 1, activation.KindAffinity); ok {
					s.Fatal("admitted beyond the limit")
				}
				s.returnDevice("id-1", r.Generation)
				if _, ok := s.confirm("id-1", 1, activation.KindAffinity); ok {
					s.Fatal("returning a device returned a call")
				}
				s.returnConfirmation("id-1", r.Generation)
			}
			s.returnConfirmation("id-1", r.Generation)
			if _, ok := s.confirm("id-1", 0, activation.KindAffinity); ok {
				s.Fatal("admitted without any attempt")
			}
		}},
		{"confirmation: never of a simulated record", func(s *suite) {
			h := newSimulated()
			s.put("id-1", h)
			_, token, _ := s.take("id-1", maxAttempts)
			s.refuseSettle("id-1", settlement(h.Generation, token, true))
			if _, ok := s.confirm("id-1", 1, activation.KindSimulated, activation.KindMDL); ok {
				s.Fatal("admitted")
			}
		}},
		{"confirmation: independent of devices", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("refused before a device was added")
			}
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("the confirmation consumed the right to add a device")
			}
		}},
		{"confirmation: a returned call can be made again, once", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			for range 2 {
				if _, ok := s.confirm("id-1", 2, activation.KindMDL); !ok {
					s.Fatal("refused")
				}
			}
			s.returnConfirmation("id-1", r.Generation)
			if _, ok := s.confirm("id-1", 2, activation.KindMDL); !ok {
				s.Fatal("the returned call is refused")
			}
			if _, ok := s.confirm("id-1", 2, activation.KindMDL); ok {
				s.Fatal("admitted beyond the limit")
			}
		}},
		{"confirmation: what was not counted cannot be returned", func(s *suite) {
			r := s.created("id-1", activation.KindStandard)
			s.returnConfirmation("id-1", r.Generation)
			if _, ok := s.confirm("id-1", 1, activation.KindStandard); ok {
				s.Fatal("admitted before an activation")
			}
			s.succeed(r)
			s.returnConfirmation("id-1", r.Generation)
			if _, ok := s.confirm("id-1", 1, activation.KindStandard); !ok {
				s.Fatal("refused")
			}
			if _, ok := s.confirm("id-1", 1, activation.KindStandard); ok {
				s.Fatal("admitted beyond the limit")
			}
			affinity := s.created("id-2", activation.KindAffinity)
			s.returnConfirmation("id-2", affinity.Generation)
			if _, ok := s.confirm("id-2", 1, activation.KindAffinity); !ok {
				s.Fatal("affinity is refused")
			}
			s.returnConfirmation("id-3", newGeneration())
			s.absent("id-3")
		}},
		{"confirmation: nothing is returned to another generation", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("refused")
			}
			s.returnConfirmation("id-1", newGeneration())
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); ok {
				s.Fatal("admitted beyond the limit")
			}
		}},
		{"confirmation: returning one gives no device back", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("refused")
			}
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("refused")
			}
			s.returnConfirmation("id-1", r.Generation)
			s.refuseDevice("id-1")
			s.returnDevice("id-1", r.Generation)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("the returned call is refused")
			}
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); ok {
				s.Fatal("returning a device returned a call")
			}
		}},
	}
}
