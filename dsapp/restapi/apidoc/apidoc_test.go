package apidoc

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the documents")

// The documents in docs are those that the table of services gives. `go generate` writes them.
func TestWrittenDocuments(t *testing.T) {
	t.Parallel()
	for name, generate := range map[string]func() ([]byte, error){
		"openapi.json": OpenAPI, "services.md": Markdown,
	} {
		got, err := generate()
		if err != nil {
			t.Fatal(err)
		}
		file := "../../../docs/" + name
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("docs/%s is not what the table of services gives: run `go generate ./dsapp/restapi/apidoc`", name)
		}
	}
}
