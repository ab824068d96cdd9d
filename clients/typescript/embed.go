// Package typescript has the compiled TypeScript client for pages that the gateway serves. The
// client itself is no part of the gateway; see README.md.
package typescript

import _ "embed"

// Client is the module of a phone, dist/dsapp.js.
//
//go:embed dist/dsapp.js
var Client []byte

// SandboxDevice is the module of the simulated device of the sandbox, dist/sandbox-device.js. It
// imports Client from dsapp.js beside it.
//
//go:embed dist/sandbox-device.js
var SandboxDevice []byte
