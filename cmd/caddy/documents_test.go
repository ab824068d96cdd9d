package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/docblocks"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// documented says for blocks of one language below one heading of a document what runs them: a test,
// or a reader of TestReaders. If nothing can, it says why.
type documented struct {
	document, heading, language string

	has string // the row is that of blocks whose first line matches this

	by      string // the name of a test
	because string // why nothing runs the blocks

	reader   *reader
	alter    []string // pairs: what the reader cannot run as it is, and what runs instead
	replaces string   // the lines of the configuration that a block of it replaces: arguments of the function replace
	then     string   // what runs after the block
	prints   string   // a regular expression for what the block and then print
	shows    bool     // the block is what the block before it prints, with other numbers
}

// reader is somebody who runs blocks in the order of the documents, beginning with an empty home
// directory and a folder with the files of a checkout that they name.
type reader struct{ name, before, after string }

var (
	starts   = &reader{name: "starts"}
	tries    = &reader{name: "tries the sandbox"}
	writes   = &reader{name: "writes a phone"}
	solves   = &reader{name: "brings a profile"}
	operates = &reader{
		name:   "operates a gateway",
		before: "echo DSAPP_OAS_URL=https://localhost:18888/ > /etc/dsapp/environment; ln -s /etc/dsapp/Caddyfile Caddyfile",
	}
	installs = &reader{
		name: "installs a release",
		// What a release has. The folder of the reader is the unpacked one.
		before: `cp "$BINARY" caddy-dsapp_v1.0.0_linux_amd64; sha256sum caddy-dsapp_* > SHA256SUMS`,
		after:  `[ "$(stat -c %a /etc/dsapp/*.key /etc/dsapp/Caddyfile /etc/dsapp/environment | sort -u)" = 640 ]`,
	}
	leaks = &reader{
		name:   "replaces what leaked",
		before: `redis-cli SET 'dsapp:{ABC}:reg' x; redis-cli SET 'dsapp:own:login:{1}' x; redis-cli SET dsapp:sim x`,
		after:  `[ "$(redis-cli DBSIZE)" = 1 ]`,
	}
)

const (
	picture  = "a picture"
	formula  = "formulas, which TestPublishedVectors and the checkers of docs/vectors compute"
	takeLong = "takes minutes; .ci/run runs the targets"

	// A reader without a domain serves the sites of the documents with the certificate of the example.
	named = "gateway.example.com {"
	here  = ":11080 {\n\ttls /etc/dsapp/tls.pem /etc/dsapp/tls.key"
	// The lines of the configuration that a site replaces, and those of all sealing keys.
	sites       = `'^:11080 {' '^}'`
	sealingKeys = "sealing_keys"
)

// blocks are all blocks of code in the documents, in the order in which a reader meets them.
var blocks = []documented{
	{document: "README.md", heading: "DSAPP Gateway", because: picture},
	{document: "README.md", heading: "Try it", language: "sh", has: "dsapp sandbox", reader: starts},
	{
		document: "README.md", heading: "Try it", language: "sh", has: "dsapp phone", reader: starts,
		prints: `(?s)sent.*received.*verified.*\nActivated: VDS1000000-1\n`,
	},
	{document: "README.md", heading: "Test it", language: "sh", because: takeLong},

	{document: "docs/getting-started.md", heading: "Try it", language: "sh", has: "dsapp sandbox$", reader: operates},
	{document: "docs/getting-started.md", heading: "Try it", language: "sh", has: "dsapp phone", reader: operates, prints: `\nActivated: `},
	{
		document: "docs/getting-started.md", heading: "Try it", language: "sh", has: "request-signature", reader: operates,
		prints: `\nApproved for jane.doe in mydomain.com by `,
	},
	{document: "docs/getting-started.md", heading: "Build it", language: "sh", because: "make xcaddy runs xcaddy with this version, which TestVersions compares"},
	{
		document: "docs/getting-started.md", heading: "Configure it", language: "caddyfile", has: "^{$", reader: operates,
		alter:    []string{"{\n\tdsapp", "{\n\tadmin unix//run/caddy/admin.sock|0200\n\tauto_https off\n\tdsapp", named, here},
		replaces: "all",
		then: "make -s example-files; stop sandbox; caddy validate --config Caddyfile\nbackground gateway 'serving initial configuration' caddy run --config Caddyfile\n" +
			"get /health; get /rest/v2/provisioning/getServerTime; get /other; stop gateway; rm -r $HOME/caddy/dsapp",
		prints: `(?s)Valid configuration\n.*ready\n\n 200\n.* 401\n.* 404\n`,
	},
	{
		document: "docs/getting-started.md", heading: "Configure it", language: "sh", has: "make build", reader: operates,
		alter: []string{"make build\n", ": it is built\n"}, prints: `(?s)made in .*sealing.key.*Valid configuration\n`,
	},
	{document: "docs/getting-started.md", heading: "Configure it", language: "sh", has: "--server-only", reader: operates},
	{document: "docs/getting-started.md", heading: "Configure it", language: "sh", has: "ca.pem", reader: operates},
	{document: "docs/getting-started.md", heading: "Configure it", language: "sh", has: "dsapp phone", reader: operates, prints: `\nActivated: `},
	{
		document: "docs/getting-started.md", heading: "Configure it", language: "caddyfile", has: "^gateway", reader: operates,
		alter: []string{named, here}, replaces: sites, then: "changed; get /rest/v2/provisioning/getServerTime; cp Caddyfile.local Caddyfile; changed",
		prints: ` 401\n`,
	},

	{document: "docs/journeys.md", heading: "A registration and its answer", language: "json", by: "TestExamplesOfDescription"},
	{document: "docs/services.md", heading: "*", language: "sh", by: "TestCommandsOfServices"},
	{document: "docs/services.md", heading: "*", language: "json", by: "TestExamplesOfDescription"},
	{document: "docs/configuration.md", heading: "Configuration", language: "json", because: "a setting of an editor; TestSchemaAcceptsConfigurations uses the schema"},

	{document: "docs/operation.md", heading: "Commands for operators", language: "sh", reader: operates, prints: `STATE +ready\n`},
	{document: "docs/operation.md", heading: "Redis", language: "caddyfile", by: "TestDocumentedCaddyfiles"},
	{document: "docs/operation.md", heading: "Redis", by: "TestClusterUser"},
	{document: "docs/operation.md", heading: "Nodes behind a load balancer", language: "sh", reader: operates, prints: `"state":"ready"`},
	{document: "docs/operation.md", heading: "Nodes behind a load balancer", by: "TestRollingRestart"},
	{document: "docs/operation.md", heading: "Moving a fleet to another profile", language: "caddyfile", by: "TestDocumentedCaddyfiles"},
	{
		document: "docs/operation.md", heading: "Following one call", language: "sh", reader: operates,
		// The ID is that of a call of the reader's, whose log is what the gateway prints.
		alter:  []string{"4d1f5c1e-8f0a-4c3e-9a41-6b1d2f7c0a55", `'"$(call)"'`, "/var/log/dsapp/*.log", "gateway.log"},
		prints: `http.log.access.*"dsapp_service":"provisioning/getServerTime"`,
	},
	{
		document: "docs/operation.md", heading: "Logs", language: "caddyfile", reader: operates,
		alter:    []string{"{\n\tlog default", "auto_https off\n\tlog default", "\t}\n}", "\t}"},
		replaces: "'auto_https off'",
		then:     "changed; phone; until_seen /var/log/dsapp/audit.log '\"activated\"' $gateway; stat -c %a /var/log/dsapp/audit.log",
		prints:   `\n600\n`,
	},
	{document: "docs/operation.md", heading: "Calls from web pages", language: "json", by: "TestDocumentedMembers"},
	{
		document: "docs/operation.md", heading: "The reference on the site", language: "caddyfile", reader: operates,
		alter: []string{named, here}, replaces: sites, then: "changed; get /reference/; get /rest/v2/provisioning/getServerTime",
		prints: `(?s)<title>.* 200\n.* 401\n`,
	},
	{document: "docs/operation.md", heading: "The reference on the site", language: "json", by: "TestDocumentedMembers"},
	{
		document: "docs/operation.md", heading: "The console", language: "caddyfile", reader: operates,
		alter: []string{named, here}, replaces: sites, then: "changed; get /reference/console.html; cp Caddyfile.local Caddyfile; changed",
		prints: `(?s)<title>.* 200\n`,
	},
	{document: "docs/operation.md", heading: "Events", language: "json", by: "TestExampleOfEvents"},
	{document: "docs/operation.md", heading: "Metrics", language: "sh", reader: operates, prints: `caddy_dsapp_node_state\{state="ready"\} 1\n`},
	{
		document: "docs/operation.md", heading: "Dashboard and alarms", language: "caddyfile", reader: operates,
		alter:    []string{"10.0.0.11:9180", "127.0.0.1:9180", "10.0.0.0/24", "127.0.0.0/8"},
		replaces: "end", then: "changed; curl http://127.0.0.1:9180/metrics", prints: `caddy_dsapp_node_state\{state="ready"\} 1\n`,
	},
	{document: "docs/operation.md", heading: "Dashboard and alarms", language: "json", by: "TestMetricsOnASite"},

	{document: "docs/install.md", heading: "The binary", language: "sh", reader: installs, alter: []string{"tar -xzf", ": tar -xzf", "&& cd", ": cd"}, prints: `(?s)amd64: OK.*\ndsapp\b`},
	{
		document: "docs/install.md", heading: "With systemd", language: "sh", has: "install", reader: installs,
		alter:  []string{"-g dsapp ", ""}, // The group is in the folder of the reader only.
		prints: `(?s)Valid configuration\n.*STATE +ready\n`,
	},
	{
		document: "docs/install.md", heading: "With systemd", language: "sh", has: "dsapp check", reader: installs,
		// There is no server, and this machine need not have the setting of the kernel.
		alter:  []string{"sudo -u dsapp ", "", "check --config /etc/dsapp/Caddyfile", "check --config /etc/dsapp/Caddyfile || [ $? = 1 ]"},
		prints: `dns +instance primary: `,
	},
	{document: "docs/install.md", heading: "In a container", language: "sh", because: "make container-check builds the image with buildah and runs it"},
	{document: "docs/install.md", heading: "On Kubernetes", language: "sh", because: "needs a cluster; make deploy-check and TestDeployedConfigurations check the files"},
	{document: "docs/install.md", heading: "All together, to try it", language: "sh", because: "needs docker; TestDeployedTogether runs the files without containers"},
	{document: "docs/upgrade.md", heading: "Back to an earlier version", because: "what an earlier version prints"},

	{document: "docs/security.md", heading: "Procedures", language: "sh", reader: operates, then: "changed() {\n$BLOCK\n}", prints: `Valid configuration\n`},
	{document: "docs/security.md", heading: "Sealing keys", language: "sh", has: "openssl", reader: operates, alter: []string{"-g dsapp ", ""}, prints: `/etc/dsapp/sealing-2.key\n`},
	{document: "docs/security.md", heading: "Sealing keys", language: "caddyfile", reader: operates, replaces: sealingKeys, then: "changed"},
	{document: "docs/security.md", heading: "Sealing keys", language: "sh", has: "seal-usage", reader: operates},
	{document: "docs/security.md", heading: "Sealing keys", reader: operates, shows: true},
	{document: "docs/security.md", heading: "A sealing key has leaked", language: "sh", reader: leaks},
	{
		document: "docs/security.md", heading: "API keys", language: "caddyfile", reader: operates,
		replaces: `'api_key bank-site' '^\t*}'`, then: "openssl rand -hex 32 > /etc/dsapp/back-end-2.key; changed; caddy dsapp keys list --address unix//run/caddy/admin.sock",
		prints: `(?s)bank-site .*\nbank-site `,
	},
	{
		document: "docs/security.md", heading: "Certificates, authorities and passwords", language: "sh", reader: leaks,
		alter: []string{"redis-cli ACL SAVE", ": without a file of users"},
	},

	{document: "docs/migration.md", heading: "Side by side", language: "caddyfile", by: "TestMigrationSideBySide"},
	{document: "docs/migration.md", heading: "Side by side", language: "sh", by: "TestMigrationCertificate"},
	{document: "docs/migration.md", heading: "Moving traffic", language: "caddyfile", by: "TestMigrationByWeight"},

	{document: "docs/protocol.md", heading: "HTTP", because: "a request without a body; TestPhoneActivates sends such"},
	{document: "docs/protocol.md", heading: "HTTP", language: "json", by: "TestExamplesOfDescription"},
	{document: "docs/protocol.md", heading: "An activation of a multi-device licence", because: formula},
	{document: "docs/protocol.md", heading: "An activation of a standard licence", language: "json", by: "TestStandardLicenseIsActivated"},
	{document: "docs/protocol.md", heading: "An activation of a standard licence", because: formula},
	{document: "docs/protocol.md", heading: "The formulas", because: "a number, which TestPrimeOfDefaultProfile compares"},
	{document: "docs/protocol.md", heading: "Profiles for other libraries", language: "caddyfile", by: "TestDocumentedCaddyfiles"},
	{document: "docs/protocol.md", heading: "Opening an item", because: formula},
	{document: "docs/protocol.md", heading: "Logins and signatures", because: "a list of calls; TestRequestIsCompleted makes them"},
	{document: "docs/protocol.md", heading: "Trying it with the sandbox", language: "sh", has: "dsapp sandbox$", reader: writes},
	{
		document: "docs/protocol.md", heading: "Trying it with the sandbox", language: "sh", has: "curl", reader: writes,
		alter: []string{"…/ca.pem", `"$CA"`}, then: "caddy dsapp phone activate", prints: `"STAT_SUCCESS"(?s).*"activationPassword".*\nActivated: `,
	},
	{document: "docs/protocol.md", heading: "Trying it with the sandbox", language: "sh", has: "request-signature", reader: writes, then: "caddy dsapp phone sign", prints: `\nApproved for `},
	{document: "docs/protocol.md", heading: "The sandbox's simulated device", because: formula},

	{document: "docs/profiles.md", heading: "The capture", language: "json", because: "shortened; TestProfileSolve and TestCapturesOfLibrary read whole ones"},
	{document: "docs/profiles.md", heading: "The capture", language: "sh", reader: solves, prints: `"module": "srp6a"`},
	{document: "docs/profiles.md", heading: "Finding the profile", language: "sh", because: "a file of the reader; TestProfileSolve runs the command"},
	{document: "docs/profiles.md", heading: "Settling the rest", language: "sh", because: "needs a phone; TestProfileRecord runs the command"},
	{document: "docs/profiles.md", heading: "Comparing", language: "sh", because: "a file of the reader; TestProfileCheck runs the command"},

	{document: "docs/sandbox.md", heading: "Start in five minutes", language: "sh", has: "dsapp sandbox --ready-file", reader: tries},
	{document: "docs/sandbox.md", heading: "Start in five minutes", language: "sh", has: "ca=", reader: tries, prints: `"STAT_SUCCESS"`},
	{
		document: "docs/sandbox.md", heading: "Start in five minutes", language: "sh", has: "phone activate", reader: tries,
		// They are in the answer of the command before.
		alter:  []string{"--registration-identifier ID --activation-password PASSWORD", `$(registration)`},
		prints: `(?s)\nActivated: .*\nActivated: `,
	},
	{document: "docs/sandbox.md", heading: "Start in five minutes", language: "sh", has: "request-signature", reader: tries},
	{
		document: "docs/sandbox.md", heading: "Start in five minutes", language: "sh", has: "phone sign", reader: tries,
		alter:  []string{"caddy dsapp phone cancel", "caddy dsapp sandbox request-signature\ncaddy dsapp phone cancel"},
		prints: `(?s)\nApproved for .*\nRejected\.\n`,
	},
	{
		document: "docs/sandbox.md", heading: "Start in five minutes", language: "sh", has: "control/failures", reader: tries,
		then: "register", prints: `"STAT_COMMS".* 502\n`,
	},
	{document: "docs/sandbox.md", heading: "Start in five minutes", language: "sh", has: "docs/sandbox.sh", by: "TestSandboxScript"},
	{document: "docs/sandbox.md", heading: "Failures", language: "sh", reader: tries, then: "register", prints: `(?s)"times": 2.*"1.5s".*"instance": 1.*\[\].* 200\n`},
	{document: "docs/sandbox.md", heading: "Users", language: "sh", reader: tries, prints: `(?s)"john".*"locked": false`},
	{document: "docs/sandbox.md", heading: "What was sent", language: "sh", reader: tries, prints: `(?s)"PROVISIONCMD_MDL_REGISTER": \d.*"key": `},
	{
		document: "docs/sandbox.md", heading: "JSON", language: "sh", reader: tries,
		alter:  []string{"caddy dsapp phone sign --prepare", "caddy dsapp phone activate\ncaddy dsapp sandbox request-signature\ncaddy dsapp phone sign --prepare"},
		prints: `"STAT_SUCCESS"`,
	},
	{document: "docs/sandbox.md", heading: "Start it for tests", language: "sh", reader: tries, then: "until [ -s ready.json ]; do sleep 0.05; done"},
	{document: "docs/sandbox.md", heading: "Start it for tests", language: "json", because: "a file that startSandbox and docs/sandbox.sh read"},

	{document: "CONTRIBUTING.md", heading: "Run it", language: "sh", because: takeLong},
	{document: "clients/java/README.md", heading: "Java client", language: "java", by: "TestJavaClient"},
	{document: "clients/java/README.md", heading: "Build and test", language: "sh", because: "needs a JDK; make clients runs it"},
	{document: "clients/typescript/README.md", heading: "TypeScript client", language: "ts", by: "TestTypeScriptClient"},
	{document: "clients/typescript/README.md", heading: "Build and test", language: "sh", because: "needs npm; make clients runs it"},
}

// holds returns the rows of a block, which should be one.
func holds(document string, b docblocks.Block) (found []*documented) {
	first, _, _ := strings.Cut(b.Text, "\n")
	for i, row := range blocks {
		if row.document == document && row.language == b.Language && (row.heading == b.Heading || row.heading == "*") && regexp.MustCompile(row.has).MatchString(first) {
			found = append(found, &blocks[i])
		}
	}
	return found
}

// Each block of code in the documents has a row that says what runs it or why nothing does, and each
// row has a block. The tests that rows name exist.
func TestDocumentedBlocks(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	used := map[*documented]bool{}
	for _, file := range append(files, "../../README.md", "../../CONTRIBUTING.md", "../../clients/java/README.md", "../../clients/typescript/README.md", "../../docs/vectors/README.md") {
		document := strings.TrimPrefix(filepath.ToSlash(file), "../../")
		for _, b := range docblocks.Read(t, file) {
			if b.Language == "mermaid" {
				continue // a picture
			}
			rows := holds(document, b)
			require.Len(t, rows, 1, "rows for the block of %q in %s:%d, below %q", b.Language, document, b.Line, b.Heading)
			used[rows[0]] = true
		}
	}
	var sources strings.Builder
	for _, pattern := range []string{"*_test.go", "../../*_test.go", "../../*/*_test.go", "../../*/*/*_test.go", "../../*/*/*/*_test.go"} {
		names, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, name := range names {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			sources.Write(text)
		}
	}
	for i, row := range blocks {
		what := fmt.Sprintf("the row of %s, %q, %s", row.document, row.heading, row.language)
		assert.True(t, used[&blocks[i]], "%s has no block", what)
		ways := 0
		for _, way := range []bool{row.by != "", row.because != "", row.reader != nil} {
			if way {
				ways++
			}
		}
		assert.Equal(t, 1, ways, "%s names a test, a reader or a reason", what)
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(row.by+" "+row.because, -1) {
			if !strings.Contains(sources.String(), "func "+name+"(") {
				t.Errorf("%s names %s, which there is not", what, name)
			}
		}
	}
}

// commands is what readers have: sudo, systemd in their folder, the commands of a bank and a phone, and
// what they do by hand. Commands that go on until they are stopped run in the background.
const commands = `
set -euo pipefail
mkdir -p "$ROOT"/etc/{dsapp,systemd/system,sysusers.d,tmpfiles.d,sysctl.d} "$ROOT"/{tmp,run/caddy,var/log/dsapp,usr/local/bin}
stop() { if [ -n "${!1:-}" ]; then { kill -KILL "${!1}" && wait "${!1}"; } 2>/dev/null || true; fi; }
# until_seen FILE TEXT PID: waits for a text in what a command writes.
until_seen() {
	until grep -qs -e "$2" "$1"; do
		kill -0 "$3" 2>/dev/null || grep -qs -e "$2" "$1" || { cat "$1"; exit 1; }
		sleep 0.02
	done
}
# background NAME TEXT COMMAND...: runs a command until the next one of its name begins, and waits for a text.
background() {
	local name=$1 text=$2; shift 2
	stop "$name"; : > "$name.log"
	"$@" > "$name.log" 2>&1 &
	printf -v "$name" %s $!
	[ -z "$text" ] || until_seen "$name.log" "$text" "${!name}"
}
# ask COMMAND...: requests a login or signature in the background, and waits until the push has arrived.
ask() {
	local before=$(pushes)
	background asking 'waits for the phone' "$@"
	until [ "$(pushes)" != "$before" ]; do
		kill -0 "$asking" || { cat asking.log; exit 1; }
		sleep 0.02
	done
}
pushes() { curl --insecure "https://localhost:$SERVER/pushes"; }
trap 'kill -KILL $(jobs -p) 2>/dev/null || true; wait' EXIT
sudo() { "$@"; }
curl() { command curl -sS "$@"; }
systemd-sysusers() { command systemd-sysusers --root="$ROOT"; }
systemd-tmpfiles() { command systemd-tmpfiles "$@" --root="$ROOT"; }
sysctl() { [ -f "$2" ]; }
systemctl() {
	[ "$1" = enable ] || return 0
	set -a; . "$ROOT/etc/dsapp/environment"; set +a
	background gateway 'serving initial configuration' $(sed -n 's/^ExecStart=//p' "$ROOT/etc/systemd/system/dsapp-gateway.service" | sed "s| /| $ROOT/|g; s|^/|$ROOT/|")
}
# replace FROM [TO]: replaces lines of the configuration by the standard input; all: all of them; end: adds to them.
replace() {
	case $1 in
	all) cat > Caddyfile; return ;;
	end) cat >> Caddyfile; return ;;
	esac
	cat > block
	grep -q -e "$1" Caddyfile
	sed -i --follow-symlinks -e "/$1/r block" -e "/$1/${2:+,/$2/}d" Caddyfile
}
changed() { caddy reload --force --config Caddyfile --address "unix/$ROOT/run/caddy/admin.sock"; }
get() { curl --cacert "$ROOT/etc/dsapp/tls.pem" --write-out '\n %{http_code}\n' "https://localhost:$GATEWAY$1"; }
# call calls a service, waits until its line is in the log, and prints its ID.
call() {
	local id=$(curl --cacert "$ROOT/etc/dsapp/tls.pem" -u "$(cat "$ROOT/etc/dsapp/front-end.key"):" -o /dev/null -D - -X POST "https://localhost:$GATEWAY/rest/v2/provisioning/getServerTime" |
		tr -d '\r' | sed -n 's/^x-request-id: //ip')
	until_seen gateway.log "http.log.access.*$id" "$gateway"
	echo "$id"
}
phone() {
	caddy dsapp phone activate --dir "$ROOT/tmp/sandbox" --ca "$ROOT/etc/dsapp/tls.pem" \
		--front-end-key "$(cat "$ROOT/etc/dsapp/front-end.key")" --back-end-key "$(cat "$ROOT/etc/dsapp/back-end.key")"
}
# register is the bank's site, and registration what the phone of its user needs.
register() {
	curl --cacert "$CA" -u sandbox-back-end: -H 'Content-Type: application/json' --write-out ' %{http_code}\n' \
		-d '{"userID":"jane.doe","domain":"mydomain.com","staticPassword":"sandbox"}' "https://localhost:$GATEWAY/rest/v2/provisioning/DSAPPSRPRegister"
}
registration() {
	register | sed 's/ 200$//' | python3 -c 'import json, sys; r = json.load(sys.stdin)["result"]; print("--registration-identifier", r["registrationIdentifier"], "--activation-password", r["activationPassword"])'
}
`

// program is caddy: the binary of the tests, with the addresses of the reader in the place of the
// default ones, and without a limit of a machine with other users.
const program = `#!/usr/bin/env bash
case "$*" in
*--listen\ *|*--gateway*) ;;
"dsapp sandbox request-"*) set -- "$@" --server "https://localhost:$SERVER/" ;;
"dsapp sandbox --server-only"*) set -- "$@" --listen-control "localhost:$CONTROL" ;;
"dsapp sandbox"*) set -- "$@" --listen "localhost:$GATEWAY" --listen-server "localhost:$SERVER" --listen-control "localhost:$CONTROL" ;;
"dsapp phone activate"*|"dsapp phone authenticate"*) set -- "$@" --gateway "https://localhost:$GATEWAY" ;;
"dsapp phone"*) set -- "$@" --gateway "https://localhost:$GATEWAY" --server "https://localhost:$SERVER/" ;;
esac
exec "$BINARY" "$@"
`

// endless are the commands that do not end by themselves, with how they are started.
var endless = []struct {
	command *regexp.Regexp
	start   string
}{
	{regexp.MustCompile(`^(\S+=\S+ )?(bin/)?caddy run `), "background gateway 'serving initial configuration' env "},
	{regexp.MustCompile(`^(bin/)?caddy dsapp sandbox request-`), "ask "},
	{regexp.MustCompile(`^(bin/)?caddy dsapp sandbox .*--quiet`), "background quiet '' "},
	{regexp.MustCompile(`^(bin/)?caddy dsapp sandbox --server-only`), "background server 'Start the gateway' "},
	{regexp.MustCompile(`^(bin/)?caddy dsapp sandbox\b`), "background sandbox '/pushes$' "},
}

// Readers run the commands and configurations of the documents in the order in which they meet them:
// all succeed, and print what the documents say. Only addresses, folders and what a row alters differ.
func TestReaders(t *testing.T) {
	t.Parallel()
	for _, r := range []*reader{starts, operates, installs, leaks, writes, tries} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.read(t)
		})
	}
}

func (r *reader) read(t *testing.T) {
	// The path of a socket below t.TempDir would be too long.
	root, err := os.MkdirTemp("", "reader")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(root)) })
	ports := map[string]string{"GATEWAY": "11080", "SERVER": "18888", "CONTROL": "18880", "METRICS": "9180"}
	paths := []string{
		"go run ./cmd/caddy", "caddy", "/etc/", root + "/etc/", "/run/caddy", root + "/run/caddy", "/tmp/", root + "/tmp/", "/var/log/", root + "/var/log/",
		"/usr/local/", root + "/usr/local/",
	}
	env := append(testbed.Environment(filepath.Join(root, "home")), "ROOT="+root, "BINARY="+testbed.Program(nil, nil).Path,
		"CA="+filepath.Join(root, "home", "caddy", "dsapp-sandbox", "certificates", "ca.pem"),
		"EXAMPLE_DIR="+filepath.Join(root, "etc", "dsapp"), "USER="+strconv.Itoa(os.Getuid()))
	for name, port := range ports {
		_, free, err := net.SplitHostPort(freeport.Address(t))
		require.NoError(t, err)
		paths = append(paths, ":"+port, ":"+free)
		env = append(env, name+"="+free)
	}
	mine := strings.NewReplacer(paths...)

	folder := filepath.Join(root, "checkout")
	bin := filepath.Join(folder, "bin")
	require.NoError(t, os.MkdirAll(bin, 0o700))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o700))
	}
	write("bin/caddy", program)
	if r == leaks {
		host, port, err := net.SplitHostPort(redistest.Start(t).Addr())
		require.NoError(t, err)
		write("bin/redis-cli", fmt.Sprintf("#!/bin/sh\nPATH='%s' exec redis-cli -h %s -p %s \"$@\"\n", os.Getenv("PATH"), host, port))
	}
	example, err := os.ReadFile("../../Caddyfile.example")
	require.NoError(t, err)
	write("Caddyfile.example", mine.Replace(string(example)))
	write("Caddyfile.local", mine.Replace(strings.ReplaceAll(string(example), "\t\t\tallow 10.0.0.0/8\n", "")))
	for _, name := range []string{"Makefile", "CHANGELOG.md", "deploy"} {
		target, err := filepath.Abs("../../" + name)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(target, filepath.Join(folder, name)))
	}

	type step struct {
		documented
		docblocks.Block
	}
	var steps []step
	script := commands + mine.Replace(r.before) + "\n"
	read := map[string]bool{}
	for _, row := range blocks {
		if row.reader == nil || read[row.document] {
			continue
		}
		read[row.document] = true
		for _, b := range docblocks.Read(t, "../../"+row.document) {
			rows := holds(row.document, b)
			if len(rows) != 1 || rows[0].reader != r {
				continue
			}
			row := *rows[0]
			script += fmt.Sprintf("printf '\\n== %d %s:%d\\n'\n", len(steps), row.document, b.Line)
			steps = append(steps, step{row, b})
			text := mine.Replace(strings.NewReplacer(row.alter...).Replace(b.Text))
			switch {
			case row.shows:
			case row.replaces != "":
				script += "replace " + mine.Replace(row.replaces) + " <<'BLOCK'\n" + text + "BLOCK\n"
			default:
				script += inBackground(text)
			}
			script += mine.Replace(strings.ReplaceAll(row.then, "$BLOCK", b.Text)) + "\n"
		}
	}
	script += mine.Replace(r.after) + "\n"

	ctx, cancel := context.WithTimeout(t.Context(), 2*poll.Patience)
	defer cancel()
	out := new(output.Buffer)
	shell := exec.CommandContext(ctx, "bash", "-c", script)
	shell.Dir, shell.Stdout, shell.Stderr = folder, out, out
	shell.Env = append(env, "PATH="+bin+":"+os.Getenv("PATH"))
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	shell.WaitDelay = time.Second
	err = shell.Run()
	_ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL)
	poll.Until(t, "the end of what the reader started", func() bool { return syscall.Kill(-shell.Process.Pid, 0) == syscall.ESRCH })
	if err != nil {
		t.Fatalf("%v\n%s\n-- the commands:\n%s", err, out, strings.TrimPrefix(script, commands))
	}

	printed := regexp.MustCompile(`(?m)^== \d+ .*$`).Split(out.String(), -1)[1:]
	require.Len(t, printed, len(steps))
	numbers := regexp.MustCompile(`\b[0-9a-f]{16}\b|\d+| +`)
	for i, s := range steps {
		where := fmt.Sprintf("%s:%d", s.document, s.Line)
		assert.Regexp(t, s.prints, printed[i], where)
		if s.shows {
			assert.Equal(t, numbers.ReplaceAllString(s.Text, " "), numbers.ReplaceAllString(strings.Trim(printed[i-1], "\n")+"\n", " "), where)
		}
	}
}

// inBackground has the endless ones of some commands run in the background.
func inBackground(commands string) (script string) {
	for line := range strings.Lines(commands) {
		for _, e := range endless {
			if e.command.MatchString(strings.TrimPrefix(line, "sudo ")) {
				line = e.start + line
				break
			}
		}
		script += line
	}
	return script
}

// The members and the route that the documents show in JSON work in a configuration.
func TestDocumentedMembers(t *testing.T) {
	t.Parallel()
	const document = "../../docs/operation.md"
	certs := testbed.Certificates(t)
	g := testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, func(dsapp testbed.Object) {
		require.NoError(t, json.Unmarshal([]byte("{"+docblocks.Find(t, document, "Calls from web pages", "json")+"}"), &dsapp))
	})
	var route testbed.Object
	require.NoError(t, json.Unmarshal([]byte(docblocks.Find(t, document, "The reference on the site", "json")), &route))
	server := g.HTTPServer()
	server["routes"] = append([]testbed.Object{route}, server["routes"].([]testbed.Object)...)
	g.Start(t)

	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+testbed.ServerTimePath, nil)
	require.NoError(t, err)
	request.Header.Set("Origin", "https://app.example.com")
	request.SetBasicAuth(testbed.FrontEndKey, "")
	reply, err := g.Do(request)
	require.NoError(t, err)
	assert.Equal(t, "https://app.example.com", reply.Header.Get("Access-Control-Allow-Origin"))
	request, err = http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL+"/reference/", nil)
	require.NoError(t, err)
	reply, err = g.Do(request)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, reply.Status)
}
