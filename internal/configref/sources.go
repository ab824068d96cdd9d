package configref

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
)

// module is the path of the Go module, which the sources of its packages are below.
const module = "github.com/dsapp-gateway/dsapp-gateway/"

func inModule(packagePath string) bool { return strings.HasPrefix(packagePath, module) }

// sources reads comments from the source tree.
type sources struct {
	root     string
	packages map[string]*comments // by path
}

// comments are those of a package, by `Type`, `Type.Field` and `Type.Method`.
type comments map[string]string

// of returns the comments of a package. A package that cannot be read has none, so that its
// options count as without a comment.
func (s *sources) of(packagePath string) comments {
	if known, ok := s.packages[packagePath]; ok {
		return *known
	}
	found := comments{}
	s.packages[packagePath] = &found
	files, _ := filepath.Glob(filepath.Join(s.root, filepath.FromSlash(strings.TrimPrefix(packagePath, module)), "*.go"))
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			continue
		}
		for _, declaration := range file.Decls {
			found.add(declaration)
		}
	}
	return found
}

func (c comments) add(declaration ast.Decl) {
	switch d := declaration.(type) {
	case *ast.FuncDecl:
		if d.Recv != nil {
			receiver := d.Recv.List[0].Type
			if pointer, ok := receiver.(*ast.StarExpr); ok {
				receiver = pointer.X
			}
			if name, ok := receiver.(*ast.Ident); ok {
				c[name.Name+"."+d.Name.Name] = d.Doc.Text()
			}
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			t, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			c[t.Name.Name] = d.Doc.Text() + t.Doc.Text()
			if structure, ok := t.Type.(*ast.StructType); ok {
				for _, f := range structure.Fields.List {
					for _, name := range f.Names {
						c[t.Name.Name+"."+name.Name] = f.Doc.Text()
					}
				}
			}
		}
	}
}

func (s *sources) typeComment(t reflect.Type) string { return s.of(t.PkgPath())[t.Name()] }

func (s *sources) fieldComment(t reflect.Type, name string) string {
	return s.of(t.PkgPath())[t.Name()+"."+name]
}

// usage is how an option is written in a Caddyfile, and what its block can contain.
type usage struct {
	text  string
	below []*usage
}

// find returns the usage of a JSON member: that of the option of the same name; for a list of
// objects that of its elements, whose name has no "s" at the end; for a member that is an
// argument of the block, that of the block.
func (u *usage) find(member string) *usage {
	for _, name := range []string{member, strings.TrimSuffix(member, "s")} {
		for _, b := range u.below {
			if first, _, _ := strings.Cut(b.text, " "); first == name {
				return b
			}
		}
	}
	if strings.Contains(u.text, "<"+member+">") {
		return &usage{text: u.text}
	}
	return &usage{}
}

var usageLine = regexp.MustCompile(`^(\t| {4})( *)(\S.*)$`)

// usage returns the usage that the comment of UnmarshalCaddyfile shows.
func (s *sources) usage(t reflect.Type) (*usage, error) {
	comment := s.of(t.PkgPath())[t.Name()+".UnmarshalCaddyfile"]
	var open []*usage // the blocks around a line
	var top *usage
	for line := range strings.Lines(comment) {
		m := usageLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil || m[3] == "..." {
			continue
		}
		if m[3] == "}" {
			if len(open) == 0 {
				return nil, fmt.Errorf("the usage of %s has a brace too much", t)
			}
			open = open[:len(open)-1]
			continue
		}
		text, block := strings.CutSuffix(m[3], " {")
		u := &usage{text: text}
		if len(open) > 0 {
			open[len(open)-1].below = append(open[len(open)-1].below, u)
		} else if top == nil {
			top = u
		}
		if block {
			u.text += " { … }"
			open = append(open, u)
		}
	}
	if top == nil || len(open) > 0 {
		return nil, fmt.Errorf("the comment of UnmarshalCaddyfile of %s has no usage with balanced braces", t)
	}
	return top, nil
}
