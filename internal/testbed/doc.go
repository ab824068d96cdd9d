//go:build linux

// Package testbed runs the real binary, over real TLS, in front of simulated authentication
// servers that live in the test process. It is the ground on which the tests of cmd/caddy
// stand.
//
// What runs:
//
//   - binary.go builds the binary once and runs its commands.
//   - network.go gives the tests a network of their own.
//   - config.go writes configurations of a gateway.
//   - gateway.go is the process of a gateway: Start, Load, Kill, its admin endpoint, its log.
//   - usage.go tells what the process uses of the machine.
//   - server.go is the simulated authentication server, whose commands a test can intercept.
//   - faulty.go is an authentication server that breaks the protocols, from TCP up to SOAP,
//     and command.go has the commands that it gets.
//   - proxies.go has proxies that pass commands on as they are, to compare a gateway with.
//
// Who calls:
//
//   - client.go posts requests and checks answers; paths.go has the paths, bodies and
//     answers that tests share.
//   - activation.go is the bank's site and a phone that is activated.
//   - request.go is the bank that asks for logins and signatures, and a phone that answers.
//   - wire.go writes bytes to a connection: HTTP/1.1 and HTTP/2 that no client would send.
//
// What goes on for a while:
//
//   - load.go plays the scenarios of scenario.go, whose answers are known beforehand, as
//     many phones do at the same time.
//   - ledger.go counts what became of each request. It fails the test if one was lost or
//     answered wrongly, and writes the table of the soak suites.
//
// The timeouts of gateways, servers and clients are such that a machine that is busy with
// something else keeps them (poll.Patience): an answer that says that something took too long
// is a failure like any other. Tests of timeouts set their own.
package testbed
