package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/docblocks"
)

// documented says for the blocks of one language below one heading of a document which test runs
// them or, if none does, why.
type documented struct {
	document, heading, language string

	by      string // the name of a test
	because string // why nothing runs the block
}

const (
	picture  = "a picture"
	formula  = "formulas, which TestPublishedVectors and the checkers of docs/vectors compute"
	person   = "commands for a person in two terminals; TestSandbox, TestSandboxScript and TestExampleConfiguration run such"
	live     = "asks a gateway that the reader runs; TestOperator asks one"
	takeLong = "takes minutes; .ci/run runs the targets"
)

// blocks are all blocks of code in the documents, in the order in which a reader meets them.
var blocks = []documented{
	{document: "README.md", heading: "DSAPP Gateway", because: picture},
	{document: "README.md", heading: "Try it", language: "sh", because: person},
	{document: "README.md", heading: "Test it", language: "sh", because: takeLong},

	{document: "docs/getting-started.md", heading: "Try it", language: "sh", because: person},
	{document: "docs/getting-started.md", heading: "Build it", language: "sh", because: "make xcaddy runs xcaddy with this version, which TestVersions compares"},
	{document: "docs/getting-started.md", heading: "Configure it", language: "caddyfile", by: "TestDocumentedCaddyfiles"},
	{document: "docs/getting-started.md", heading: "Configure it", language: "sh", because: person},

	{document: "docs/journeys.md", heading: "A registration and its answer", language: "json", by: "TestExamplesOfDescription"},
	{document: "docs/services.md", heading: "*", language: "sh", by: "TestCommandsOfServices"},
	{document: "docs/services.md", heading: "*", language: "json", by: "TestExamplesOfDescription"},
	{document: "docs/configuration.md", heading: "Configuration", language: "json", because: "a setting of an editor; TestSchemaAcceptsConfigurations uses the schema"},

	{document: "docs/operation.md", heading: "Commands for operators", language: "sh", because: live},
	{document: "docs/operation.md", heading: "Redis", language: "caddyfile", by: "TestDocumentedCaddyfiles"},
	{document: "docs/operation.md", heading: "Redis", by: "TestClusterUser"},
	{document: "docs/operation.md", heading: "Nodes behind a load balancer", language: "sh", because: live},
	{document: "docs/operation.md", heading: "Nodes behind a load balancer", by: "TestRollingRestart"},
	{document: "docs/operation.md", heading: "Following one call", language: "sh", because: "the ID is that of a call of the reader's"},
	{document: "docs/operation.md", heading: "Logs", language: "caddyfile", by: "TestDocumentedCaddyfiles"},
	{document: "docs/operation.md", heading: "Calls from web pages", language: "json", because: "one line; TestCaddyfiles adapts to the same"},
	{document: "docs/operation.md", heading: "The reference on the site", language: "caddyfile", by: "TestDocumentedCaddyfiles"},
	{document: "docs/operation.md", heading: "The reference on the site", language: "json", because: "a route; TestCaddyfiles adapts to the same"},
	{document: "docs/operation.md", heading: "The console", language: "caddyfile", by: "TestDocumentedCaddyfiles"},
	{document: "docs/operation.md", heading: "Events", language: "json", by: "TestExampleOfEvents"},
	{document: "docs/operation.md", heading: "Metrics", language: "sh", because: live},
	{document: "docs/operation.md", heading: "Dashboard and alarms", language: "json", by: "TestMetricsOnASite"},

	{document: "docs/install.md", heading: "The binary", language: "sh", because: "the files of a release, which make release makes"},
	{document: "docs/install.md", heading: "With systemd", language: "sh", because: "changes the machine; TestUnit and TestUserAndFilesOfUnit check the files"},
	{document: "docs/install.md", heading: "In a container", language: "sh", because: "needs buildah or docker"},
	{document: "docs/install.md", heading: "On Kubernetes", language: "sh", because: "needs a cluster; make deploy-check and TestDeployedConfigurations check the files"},
	{document: "docs/install.md", heading: "All together, to try it", language: "sh", because: "needs docker; TestDeployedTogether runs the files without containers"},
	{document: "docs/upgrade.md", heading: "Back to an earlier version", because: "what an earlier version prints"},

	{document: "docs/security.md", heading: "Procedures", language: "sh", because: live},
	{document: "docs/security.md", heading: "Sealing keys", language: "sh", because: "changes the secrets of a running installation; TestKeyRotation and TestNodesAgreeOnSecret follow the steps"},
	{document: "docs/security.md", heading: "Sealing keys", language: "caddyfile", by: "TestDocumentedCaddyfiles"},
	{document: "docs/security.md", heading: "Sealing keys", because: "what a command prints; TestTables prints such"},
	{document: "docs/security.md", heading: "A sealing key has leaked", language: "sh", because: "changes the secrets of a running installation; TestKeyRotation and TestNodesAgreeOnSecret follow the steps"},
	{document: "docs/security.md", heading: "API keys", language: "caddyfile", by: "TestDocumentedCaddyfiles"},
	{document: "docs/security.md", heading: "Certificates, authorities and passwords", language: "sh", because: "changes the secrets of a running installation; TestKeyRotation and TestNodesAgreeOnSecret follow the steps"},

	{document: "docs/migration.md", heading: "Side by side", language: "caddyfile", by: "TestMigrationSideBySide"},
	{document: "docs/migration.md", heading: "Moving traffic", language: "caddyfile", by: "TestMigrationByWeight"},

	{document: "docs/protocol.md", heading: "HTTP", because: "a request without a body; TestPhoneActivates sends such"},
	{document: "docs/protocol.md", heading: "HTTP", language: "json", by: "TestExamplesOfDescription"},
	{document: "docs/protocol.md", heading: "An activation of a multi-device licence", because: formula},
	{document: "docs/protocol.md", heading: "An activation of a standard licence", language: "json", by: "TestStandardLicenseIsActivated"},
	{document: "docs/protocol.md", heading: "An activation of a standard licence", because: formula},
	{document: "docs/protocol.md", heading: "The formulas", because: "a number, which TestPrimeOfDefaultProfile compares"},
	{document: "docs/protocol.md", heading: "Opening an item", because: formula},
	{document: "docs/protocol.md", heading: "Logins and signatures", because: "a list of calls; TestRequestIsCompleted makes them"},
	{document: "docs/protocol.md", heading: "Trying it with the sandbox", language: "sh", because: person},
	{document: "docs/protocol.md", heading: "The sandbox's simulated device", because: formula},

	{document: "docs/profiles.md", heading: "The capture", language: "json", because: "shortened; TestProfileSolve and TestCapturesOfLibrary read whole ones"},
	{document: "docs/profiles.md", heading: "The capture", language: "sh", because: person},
	{document: "docs/profiles.md", heading: "Finding the profile", language: "sh", because: "a file of the reader; TestProfileSolve runs the command"},
	{document: "docs/profiles.md", heading: "Settling the rest", language: "sh", because: "needs a phone; TestProfileRecord runs the command"},
	{document: "docs/profiles.md", heading: "Comparing", language: "sh", because: "a file of the reader; TestProfileCheck runs the command"},

	{document: "docs/sandbox.md", heading: "Start in five minutes", language: "sh", because: person},
	{document: "docs/sandbox.md", heading: "Failures", language: "sh", because: person},
	{document: "docs/sandbox.md", heading: "Users", language: "sh", because: person},
	{document: "docs/sandbox.md", heading: "What was sent", language: "sh", because: person},
	{document: "docs/sandbox.md", heading: "JSON", language: "sh", because: person},
	{document: "docs/sandbox.md", heading: "Start it for tests", language: "sh", because: person},
	{document: "docs/sandbox.md", heading: "Start it for tests", language: "json", because: "a file that startSandbox and docs/sandbox.sh read"},

	{document: "CONTRIBUTING.md", heading: "Run it", language: "sh", because: takeLong},
	{document: "clients/java/README.md", heading: "Java client", language: "java", by: "TestJavaClient"},
	{document: "clients/java/README.md", heading: "Build and test", language: "sh", because: "needs a JDK; make clients runs it"},
	{document: "clients/typescript/README.md", heading: "TypeScript client", language: "ts", by: "TestTypeScriptClient"},
	{document: "clients/typescript/README.md", heading: "Build and test", language: "sh", because: "needs npm; make clients runs it"},
}

// holds returns the row of a block, which is nil if there is none.
func holds(document string, b docblocks.Block) (found []*documented) {
	for i, row := range blocks {
		if row.document == document && row.language == b.Language && (row.heading == b.Heading || row.heading == "*") {
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
		for _, way := range []bool{row.by != "", row.because != ""} {
			if way {
				ways++
			}
		}
		assert.Equal(t, 1, ways, "%s names either a test or a reason", what)
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(row.by+" "+row.because, -1) {
			if !strings.Contains(sources.String(), "func "+name+"(") {
				t.Errorf("%s names %s, which there is not", what, name)
			}
		}
	}
}
