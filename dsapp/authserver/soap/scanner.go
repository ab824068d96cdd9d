package soap

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// byteOrderMark may precede an envelope.
const byteOrderMark = "\uFEFF"

// scanner reads an XML 1.0 document into a list of elements. It refuses whatever is not well
// formed, apart from repeated attributes and undeclared prefixes, which it does not look at.
// It also refuses document type declarations, processing instructions after the beginning of
// the envelope, and names that are not ASCII.
//
// Answers were read with encoding/xml at first. That took a fifth of the processor time of a
// request, and it is the reference in the tests.
type scanner struct {
	text     string
	at       int
	elements []element

	open  [maxDepth]openElement
	depth int
	root  bool // the root element has begun

	// value is the text of the element that began last. If it has several parts, they are
	// in parts.
	value string
	parts []byte
}

// openElement is an element whose end tag has not come yet.
type openElement struct {
	index int
	tag   string // with prefix
}

// document reads the whole document.
func (s *scanner) document() error {
	for s.at < len(s.text) {
		begin := s.at
		if err := s.token(); err != nil {
			return err
		}
		if s.at-begin > maxToken {
			return fmt.Errorf("tag or text longer than %d bytes", maxToken)
		}
	}
	switch {
	case s.depth > 0:
		return s.malformed()
	case !s.root:
		return errors.New("empty document")
	}
	return nil
}

// token reads a tag, a text, a comment or a processing instruction.
func (s *scanner) token() error {
	switch {
	case s.text[s.at] != '<':
		return s.characters()
	case s.skip("</"):
		return s.endTag()
	case s.skip("<!--"):
		return s.comment()
	case s.skip("<![CDATA["):
		return s.section()
	case s.skip("<!-"), s.skip("<!["):
		return s.malformed()
	case s.skip("<!"):
		return errors.New("document type declaration is not allowed")
	case s.skip("<?"):
		return s.instruction()
	}
	s.at++
	return s.startTag()
}

// malformed returns the error for a document that is not well formed at the current place.
func (s *scanner) malformed() error {
	return fmt.Errorf("malformed XML at line %d", 1+strings.Count(s.text[:s.at], "\n"))
}

// skip skips a prefix of what follows and reports whether it is there.
func (s *scanner) skip(prefix string) bool {
	if !strings.HasPrefix(s.text[s.at:], prefix) {
		return false
	}
	s.at += len(prefix)
	return true
}

// until returns what precedes the next end, and skips both.
func (s *scanner) until(end string) (string, error) {
	n := strings.Index(s.text[s.at:], end)
	if n < 0 {
		s.at = len(s.text)
		return "", s.malformed()
	}
	content := s.text[s.at : s.at+n]
	s.at += n + len(end)
	return content, nil
}

func (s *scanner) space() {
	for s.at < len(s.text) && isSpace(s.text[s.at]) {
		s.at++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func allSpace(text string) bool { return strings.Trim(text, " \t\r\n") == "" }

func (s *scanner) comment() error {
	if _, err := s.until("--"); err != nil {
		return err
	}
	if !s.skip(">") {
		return s.malformed()
	}
	return nil
}

// instruction reads a processing instruction or the XML declaration.
func (s *scanner) instruction() error {
	if s.root {
		return errors.New("processing instruction is not allowed")
	}
	target, err := s.name()
	if err != nil {
		return err
	}
	content, err := s.until("?>")
	if err != nil || target != "xml" {
		return err
	}
	declaration := scanner{text: content}
	for {
		if declaration.space(); declaration.at == len(content) {
			return nil
		}
		name, value, err := declaration.attribute()
		valid := err == nil && (name == "standalone" || name == "version" && value == "1.0" || name == "encoding" && form.IsUTF8(value))
		if !valid {
			return errors.New("XML is not version 1.0 in UTF-8")
		}
	}
}

// name reads the name of an element, an attribute or an instruction, with its prefix.
func (s *scanner) name() (string, error) {
	begin := s.at
	for s.at < len(s.text) && inName[s.text[s.at]] {
		s.at++
	}
	name := s.text[begin:s.at]
	if s.at < len(s.text) && s.text[s.at] >= utf8.RuneSelf {
		return "", errors.New("name that is not ASCII")
	}
	if name == "" || name[0] == '-' || name[0] == '.' || name[0] >= '0' && name[0] <= '9' || strings.Count(name, ":") > 1 {
		return "", s.malformed()
	}
	return name, nil
}

// The bytes of names, and those that stand for themselves in a text.
var (
	inName = bytesOf(func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == ':' || c == '.' || c == '-'
	})
	plain = bytesOf(func(c byte) bool { return c < utf8.RuneSelf && c != '&' && c != '\r' && isXMLChar(rune(c)) })
)

// bytesOf returns a table of the bytes of a set, which takes less time than the test for each.
func bytesOf(in func(byte) bool) (set [256]bool) {
	for c := range set {
		set[c] = in(byte(c))
	}
	return set
}

// local returns a name without its prefix.
func local(name string) string {
	prefix, rest, found := strings.Cut(name, ":")
	if !found || prefix == "" || rest == "" {
		return name
	}
	return rest
}

// attribute reads an attribute with the space around it. At the end of a tag, the name is
// empty.
func (s *scanner) attribute() (name, value string, err error) {
	s.space()
	if s.at == len(s.text) || s.text[s.at] == '>' || s.text[s.at] == '/' {
		return "", "", nil
	}
	if name, err = s.name(); err != nil {
		return "", "", err
	}
	s.space()
	if !s.skip("=") {
		return "", "", s.malformed()
	}
	s.space()
	quote := `"`
	if !s.skip(quote) {
		if quote = "'"; !s.skip(quote) {
			return "", "", s.malformed()
		}
	}
	if value, err = s.until(quote); err != nil {
		return "", "", err
	}
	if strings.Contains(value, "<") {
		return "", "", s.malformed()
	}
	value, err = s.decode(value, true)
	return name, value, err
}

// startTag reads a tag after its `<`.
func (s *scanner) startTag() error {
	tag, err := s.name()
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		name, _, err := s.attribute()
		if err != nil {
			return err
		}
		if name == "" {
			break
		}
		if n == maxAttributes {
			return fmt.Errorf("element with more than %d attributes", maxAttributes)
		}
	}
	empty := s.skip("/")
	if !s.skip(">") {
		return s.malformed()
	}
	if err := s.begin(tag); err != nil {
		return err
	}
	if empty {
		s.end()
	}
	return nil
}

// begin begins an element.
func (s *scanner) begin(tag string) error {
	name := local(tag)
	switch {
	case s.depth == 0 && s.root:
		return errors.New("content after the envelope")
	case s.depth == 0 && name != "Envelope":
		return errors.New("document is not a SOAP envelope")
	case s.depth == maxDepth:
		return fmt.Errorf("elements nested deeper than %d", maxDepth)
	case len(s.elements) == maxElements:
		return fmt.Errorf("more than %d elements", maxElements)
	}
	s.root = true
	if s.depth > 0 {
		s.elements[s.open[s.depth-1].index].children = true
	}
	s.value, s.parts = "", s.parts[:0]
	s.open[s.depth] = openElement{len(s.elements), tag}
	s.depth++
	s.elements = append(s.elements, element{name: name})
	return nil
}

// end ends the element that began last of those that are open.
func (s *scanner) end() {
	s.depth--
	e := &s.elements[s.open[s.depth].index]
	e.end = len(s.elements)
	if e.children {
		return
	}
	if e.text = s.value; len(s.parts) > 0 {
		e.text = string(s.parts)
	}
}

// endTag reads a tag after its `</`.
func (s *scanner) endTag() error {
	// Nearly every end tag is the expected one without space.
	begin := s.at
	if s.depth > 0 && s.skip(s.open[s.depth-1].tag) && s.skip(">") {
		s.end()
		return nil
	}
	s.at = begin
	tag, err := s.name()
	if err != nil {
		return err
	}
	s.space()
	if !s.skip(">") || s.depth == 0 || s.open[s.depth-1].tag != tag {
		return s.malformed()
	}
	s.end()
	return nil
}

// characters reads text up to the next tag.
func (s *scanner) characters() error {
	raw := s.text[s.at:]
	if n := strings.IndexByte(raw, '<'); n >= 0 {
		raw = raw[:n]
	}
	if strings.Contains(raw, "]]>") {
		return s.malformed()
	}
	s.at += len(raw)
	return s.add(raw, true)
}

// section reads a CDATA section.
func (s *scanner) section() error {
	raw, err := s.until("]]>")
	if err != nil {
		return err
	}
	return s.add(raw, false)
}

// add adds text to the element that began last.
func (s *scanner) add(raw string, references bool) error {
	text, err := s.decode(raw, references)
	switch {
	case err != nil:
		return err
	case s.depth == 0 && s.root && !allSpace(text):
		return errors.New("content after the envelope")
	case s.depth == 0 && !s.root && !allSpace(strings.TrimPrefix(text, byteOrderMark)):
		return errors.New("text before the envelope")
	case s.depth == 0 || s.elements[s.open[s.depth-1].index].children:
		return nil
	case s.value == "" && len(s.parts) == 0:
		s.value = text
		return nil
	case len(s.parts) == 0:
		s.parts = append(s.parts, s.value...)
	}
	s.parts = append(s.parts, text...)
	return nil
}

// decode returns the text that stands for raw: references are replaced, and every end of a
// line becomes a newline.
func (s *scanner) decode(raw string, references bool) (string, error) {
	n := 0
	for n < len(raw) && plain[raw[n]] {
		n++
	}
	if n == len(raw) {
		return raw, nil
	}
	text := append(make([]byte, 0, len(raw)), raw[:n]...)
	for rest := raw[n:]; rest != ""; {
		char, size := utf8.DecodeRuneInString(rest)
		switch {
		case char == '\r':
			if char = '\n'; strings.HasPrefix(rest, "\r\n") {
				size = 2
			}
		case char == '&' && references:
			name, _, found := strings.Cut(rest[1:], ";")
			if !found {
				return "", s.malformed()
			}
			if char, found = reference(name); !found {
				return "", s.malformed()
			}
			size = len(name) + 2
		case char == utf8.RuneError && size == 1:
			return "", s.malformed()
		}
		if !isXMLChar(char) {
			return "", s.malformed()
		}
		text = utf8.AppendRune(text, char)
		rest = rest[size:]
	}
	return string(text), nil
}

// reference returns the character for the name of a reference.
func reference(name string) (rune, bool) {
	switch name {
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "amp":
		return '&', true
	case "apos":
		return '\'', true
	case "quot":
		return '"', true
	}
	digits, numeric := strings.CutPrefix(name, "#")
	if !numeric {
		return 0, false
	}
	base := 10
	if hexadecimal, ok := strings.CutPrefix(digits, "x"); ok {
		digits, base = hexadecimal, 16
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil || n > utf8.MaxRune {
		return 0, false
	}
	return rune(n), true
}
