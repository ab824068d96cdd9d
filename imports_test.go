package dsappgateway

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dsapp-gateway/dsapp-gateway"

// dependencies returns all packages that match the patterns or that these depend on.
func dependencies(t *testing.T, patterns ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list", "-deps"}, patterns...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// The library does not depend on Caddy, and only the Redis store depends on the Redis client.
func TestLibraryDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "./dsapp/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 8 {
		t.Fatalf("library has packages %v", packages)
	}
	for _, p := range packages {
		forbidden := []string{
			"github.com/caddyserver/", "go.uber.org/zap", "github.com/prometheus/", "github.com/spf13/cobra",
			module + "/caddymodule",
		}
		if !strings.HasPrefix(p, module+"/dsapp/store/redis") && !strings.HasPrefix(p, module+"/dsapp/store/storetest") {
			forbidden = append(forbidden, "github.com/redis/go-redis")
		}
		for _, dependency := range dependencies(t, p) {
			for _, prefix := range forbidden {
				if strings.HasPrefix(dependency, prefix) {
					t.Errorf("%s depends on %s", p, dependency)
				}
			}
		}
	}
}

// Package soap depends on no other package of this module than form.
func TestSOAPDependencies(t *testing.T) {
	t.Parallel()
	const soap = module + "/dsapp/authserver/soap"
	for _, dependency := range dependencies(t, soap) {
		if strings.HasPrefix(dependency, module) && dependency != soap && dependency != module+"/dsapp/form" || dependency == "net/http" {
			t.Errorf("%s depends on %s", soap, dependency)
		}
	}
}

// Production code imports nothing below internal, which has what tests share.
func TestInternalIsForTests(t *testing.T) {
	t.Parallel()
	imports := productionImports(t)
	if len(imports) < 20 {
		t.Fatalf("production packages are %q", slices.Sorted(maps.Keys(imports)))
	}
	for from, direct := range imports {
		for _, to := range direct {
			if strings.HasPrefix(to, "internal/") {
				t.Errorf("%s imports %s", from, to)
			}
		}
	}
}

// A production build contains the modules and the commands for operators. It contains neither
// the simulated server nor the sandbox with its fixed keys, nor what tests check documents with.
func TestGatewayIsWithoutSandbox(t *testing.T) {
	t.Parallel()
	found := dependencies(t, ".")
	for _, dependency := range found {
		if strings.HasPrefix(dependency, module+"/caddymodule/sandboxcmd") || strings.HasPrefix(dependency, module+"/dsapp/sandbox") ||
			strings.HasPrefix(dependency, "github.com/getkin/kin-openapi") {
			t.Errorf("the root package depends on %s", dependency)
		}
	}
	for _, needed := range []string{module + "/caddymodule", module + "/caddymodule/operatorcmd"} {
		if !slices.Contains(found, needed) {
			t.Errorf("the root package does not import %s", needed)
		}
	}
}
