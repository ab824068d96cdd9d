package apidoc

import (
	"bytes"
	"html/template"
	"maps"
	"slices"

	"github.com/dsapp-gateway/dsapp-gateway/clients/typescript"
)

// consoleName is the file of the console, beside the page of the reference.
const consoleName = "console.html"

// consoleLink returns the link to the console, empty if there is none.
func consoleLink(there bool) string {
	if there {
		return consoleName
	}
	return ""
}

// Console is a page beside the reference in which a browser is the phone. It calls the origin
// that it comes from, uses the TypeScript client and shows every value of an exchange. It
// stores nothing and needs JavaScript.
type Console struct {
	// Modules are JavaScript modules, by their file names, which the page loads, too. They can
	// import console.js to act in the place of the vendor's device library. The page of a
	// gateway that serves real users has none.
	Modules map[string][]byte
}

// consolePolicy allows the page its own modules, its style, and calls of its origin.
const consolePolicy = "; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// addTo adds the files of the console.
func (c *Console) addTo(files map[string]file) error {
	var style []byte
	for _, name := range []string{"page.css", "console.css"} {
		part, err := sources.ReadFile("reference/" + name)
		if err != nil {
			return err
		}
		style = append(style, part...)
	}
	script, err := sources.ReadFile("reference/console.js")
	if err != nil {
		return err
	}
	text, err := template.ParseFS(sources, "reference/console.html.tmpl")
	if err != nil {
		return err
	}
	var page bytes.Buffer
	if err := text.Execute(&page, struct {
		Style   template.CSS
		Modules []string
	}{template.CSS(style), slices.Sorted(maps.Keys(c.Modules))}); err != nil { //nolint:gosec // our own file
		return err
	}
	files[consoleName] = newFile(page.Bytes(), htmlType, "default-src 'none'; style-src "+hashSource(style)+consolePolicy)
	modules := map[string][]byte{"console.js": script, "dsapp.js": typescript.Client}
	maps.Copy(modules, c.Modules)
	for name, content := range modules {
		files[name] = newFile(content, "text/javascript; charset=utf-8", nothingPolicy)
	}
	return nil
}
