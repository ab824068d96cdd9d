package dsappgateway

import (
	"os/exec"
	"strings"
	"testing"
)

// The TypeScript client computes the published vectors and reports errors as it says. The compiled
// form is tested, which is checked in; make clients checks that it is up to date.
func TestTypeScriptUnits(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "node", "--test", "test/")
	cmd.Dir = "clients/typescript"
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "# fail 0") {
		t.Errorf("%v\n%s", err, out)
	}
}
