package main

import (
	"os"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// The tests of this package run the real binary, over real TLS, in front of a simulated
// authentication server that lives in the test process.
func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }
