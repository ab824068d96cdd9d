package soap

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// referenceOutline reads a document with encoding/xml: the outline that outlineOf returns of a tree.
func referenceOutline(text string) (string, error) {
	d := xml.NewDecoder(bufio.NewReader(strings.NewReader(text)))
	d.CharsetReader = func(charset string, text io.Reader) (io.Reader, error) {
		if !form.IsUTF8(charset) {
			return nil, errors.New("not UTF-8")
		}
		return text, nil
	}
	type open struct {
		name, text string
		children   bool
	}
	var outline strings.Builder
	var stack []open
	elements := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && elements > 0 {
			return outline.String(), nil
		}
		if err != nil {
			return "", err
		}
		switch t := token.(type) {
		case xml.Directive:
			return "", errors.New("directive")
		case xml.ProcInst:
			if elements > 0 {
				return "", errors.New("processing instruction")
			}
		case xml.CharData:
			switch {
			case len(stack) > 0:
				stack[len(stack)-1].text += string(t)
			case elements == 0 && !allSpace(strings.TrimPrefix(string(t), byteOrderMark)), elements > 0 && !allSpace(string(t)):
				return "", errors.New("text outside the envelope")
			}
		case xml.StartElement:
			elements++
			switch {
			case len(stack) == maxDepth, elements > maxElements, len(t.Attr) > maxAttributes:
				return "", errors.New("limit")
			case len(stack) == 0 && (elements > 1 || t.Name.Local != "Envelope"):
				return "", errors.New("another root")
			case len(stack) > 0:
				stack[len(stack)-1].children = true
			}
			fmt.Fprintf(&outline, "<%s>", t.Name.Local)
			stack = append(stack, open{name: t.Name.Local})
		case xml.EndElement:
			top := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if !top.children {
				fmt.Fprintf(&outline, "%q", top.text)
			}
			outline.WriteString("</>")
		}
	}
}

// outlineOf returns the names and texts of a tree.
func outlineOf(n node) string {
	outline := fmt.Sprintf("<%s>", n.name())
	if n.element().children {
		_ = n.each(func(child node) error { outline += outlineOf(child); return nil })
	} else {
		outline += fmt.Sprintf("%q", n.element().text)
	}
	return outline + "</>"
}

// compareWithReference checks that parse accepts nothing that encoding/xml refuses, and reads
// what it accepts in the same way. What it refuses in addition is rare in answers.
func compareWithReference(t *testing.T, text string) {
	t.Helper()
	want, refused := referenceOutline(text)
	tree, err := parse(strings.NewReader(text))
	if err == nil {
		defer tree.release()
		switch got := outlineOf(tree.root()); {
		case refused != nil:
			t.Errorf("accepted: %q, which encoding/xml refuses: %v", text, refused)
		case got != want:
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
		return
	}
	// Names that are not ASCII, unusual instructions, and references to surrogates.
	unusual := strings.ContainsFunc(text, func(r rune) bool { return r > '~' }) || strings.Contains(text, "<?") || strings.Contains(want, "\uFFFD")
	if refused == nil && !unusual && len(text) < maxToken {
		t.Errorf("refused: %q: %v", text, err)
	}
}

// scannerTexts are documents about every rule of XML that a scanner can break.
var scannerTexts = []string{
	"", " ", "x", "<", "</", "<>", "< Envelope/>", "<Envelope", "<Envelope/", "<Envelope/>", "<Envelope />", "<Envelope / >", "<Envelope/>x", "<Envelope/> \n",
	"<Envelope></Envelope>", "<Envelope></Envelope >", "<Envelope></ Envelope>", "<Envelope></Envelope/>", "<Envelope></envelope>", "<a:Envelope></a:Envelope>",
	"<a:Envelope></Envelope>", "<a:Envelope></b:Envelope>", "<a:b:Envelope/>", "<:Envelope/>", "<Envelope:/>", "<Envelope/><Envelope/>", "<Envelope/><!-- x -->",
	"<1/>", "<Envelope><1/></Envelope>", "<Envelope><-a/></Envelope>", "<Envelope><.a/></Envelope>", "<Envelope><_a.1-b/></Envelope>", "<Envelope><ä/></Envelope>",
	"<Envelope><a>x</a></Envelope>", "<Envelope>x<a>y</a>z</Envelope>", "<Envelope><a>x<!-- c -->y</a></Envelope>", "<Envelope><a>x<![CDATA[<y>&amp;]]>z</a></Envelope>",
	"<Envelope><a/>x</Envelope>", "<Envelope><a></a></Envelope>", "<Envelope><a><b></a></b></Envelope>", "<Envelope><a></Envelope>", "</Envelope>",
	`<Envelope a="1"/>`, `<Envelope a='1'/>`, `<Envelope a="1'/>`, `<Envelope a=1/>`, `<Envelope a/>`, `<Envelope a="1"b="2"/>`, `<Envelope a = "1"/>`, `<Envelope a="<"/>`,
	`<Envelope a=">"/>`, `<Envelope a="&lt;"/>`, `<Envelope a="&x;"/>`, `<Envelope a="` + "\x00" + `"/>`, `<Envelope a="1" a="2"/>`, `<Envelope xmlns:a=""/>`, `<Envelope a:b:c="1"/>`,
	`<Envelope a="]]>"/>`, `<Envelope a"1"/>`, `<Envelope"1"/>`, "<Envelope a=\"1\n2\"\n/>",
	"<Envelope>&lt;&gt;&amp;&apos;&quot;</Envelope>", "<Envelope>&nbsp;</Envelope>", "<Envelope>&</Envelope>", "<Envelope>&;</Envelope>", "<Envelope>&amp</Envelope>", "<Envelope>& amp;</Envelope>",
	"<Envelope>&#65;&#x41;&#x4a;&#x4A;</Envelope>", "<Envelope>&#X41;</Envelope>", "<Envelope>&#;</Envelope>", "<Envelope>&#x;</Envelope>", "<Envelope>&#+65;</Envelope>", "<Envelope>&#0;</Envelope>",
	"<Envelope>&#x0000041;</Envelope>", "<Envelope>&#1114111;</Envelope>", "<Envelope>&#1114112;</Envelope>", "<Envelope>&#99999999999999999999;</Envelope>", "<Envelope>&#xD800;</Envelope>",
	"<Envelope>&#13;\n</Envelope>", "<Envelope>a\r\nb\rc\n</Envelope>", "<Envelope>\r\r\n\r</Envelope>", "<Envelope>]]></Envelope>", "<Envelope>]]&gt;</Envelope>", "<Envelope>]]</Envelope>",
	"<Envelope>\x01</Envelope>", "<Envelope>\x7f</Envelope>", "<Envelope>\xff</Envelope>", "<Envelope>\xc3</Envelope>", "<Envelope>ä\uFFFD😀</Envelope>", "<Envelope>\uFFFE</Envelope>", "<Envelope>\xed\xa0\x80</Envelope>",
	"<Envelope><![CDATA[]]></Envelope>", "<Envelope><![CDATA[]]]]></Envelope>", "<Envelope><![CDATA[]]]></Envelope>", "<Envelope><![CDATA[\xff]]></Envelope>", "<Envelope><![CDATA[a\r\n]]></Envelope>",
	"<Envelope><![CDATA[</Envelope>", "<Envelope><![cdata[]]></Envelope>", "<![CDATA[ ]]><Envelope/>", "<![CDATA[x]]><Envelope/>", "<Envelope/><![CDATA[x]]>",
	"<!-- --><Envelope/>", "<!-- -- --><Envelope/>", "<!----><Envelope/>", "<!---><Envelope/>", "<!--><Envelope/>", "<!-- \xff\x00 --><Envelope/>", "<!- --><Envelope/>", "<!--", "<!", "<!-", "<![",
	"<!DOCTYPE a><Envelope/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><Envelope>&b;</Envelope>", "<Envelope><!ELEMENT a></Envelope>",
	"<?xml version='1.0'?><Envelope/>", "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><Envelope/>", "<?xml version='1.1'?><Envelope/>", "<?xml version='1.0' encoding='latin1'?><Envelope/>",
	"<?xml?><Envelope/>", "<?xml encoding='UTF-8'?><Envelope/>", "<?xml xversion='2.0'?><Envelope/>", "<?xml / version='2.0'?><Envelope/>", "<?xml version='1.0'><Envelope/>", "<?xml version='1.0'?",
	"<?XML version='2.0'?><Envelope/>", "<??><Envelope/>", "<? xml?><Envelope/>", "<?x?><Envelope/>", "<?x y?><?xml version='2.0'?><Envelope/>", "<?x?", "<Envelope/><?x y?>", "<Envelope><?x y?></Envelope>",
	"\uFEFF<Envelope/>", "\uFEFF <!-- --> \uFEFF<Envelope/>", "\uFEFF\uFEFF<Envelope/>", "<Envelope/>\uFEFF", "\ufeffx<Envelope/>",
	strings.Repeat("<Envelope>", maxDepth) + strings.Repeat("</Envelope>", maxDepth), strings.Repeat("<Envelope>", maxDepth+1) + strings.Repeat("</Envelope>", maxDepth+1),
	"<Envelope" + strings.Repeat(" a=''", maxAttributes) + "/>", "<Envelope" + strings.Repeat(" a=''", maxAttributes+1) + "/>",
	"<Envelope>" + strings.Repeat("<a/>", maxElements-1) + "</Envelope>", "<Envelope>" + strings.Repeat("<a/>", maxElements) + "</Envelope>",
}

// parse refuses what encoding/xml refuses, and reads everything else in the same way.
func TestParseLikeReference(t *testing.T) {
	t.Parallel()
	for _, text := range scannerTexts {
		compareWithReference(t, text)
	}
	requests, err := filepath.Glob("testdata/requests/*.xml")
	if err != nil || len(requests) == 0 {
		t.Fatalf("no requests: %v", err)
	}
	for _, name := range requests {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for n := range text {
			compareWithReference(t, string(text[:n]))
		}
		compareWithReference(t, string(text))
	}
}

// What parse refuses although encoding/xml does not.
func TestParseRefusesMore(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"<Envelope><ä/></Envelope>", "<Envelope>&#xD800;</Envelope>", "<?xml version = '1.1'?><Envelope/>",
		"<?xml version='1.0' encoding=\"latin1'?><Envelope/>", "<?xml version='1.0' nonsense?><Envelope/>",
	} {
		if _, err := referenceOutline(text); err != nil {
			t.Errorf("%s: also refused by encoding/xml", text)
		}
		if _, err := parse(strings.NewReader(text)); err == nil {
			t.Errorf("%s: accepted", text)
		}
	}
}

// The memory of a tree is used again, and texts of an earlier answer do not change.
func TestTreesAreUsedAgain(t *testing.T) {
	t.Parallel()
	first, err := parse(strings.NewReader("<Envelope><a>x<!-- -->&amp;</a><b>first</b></Envelope>"))
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	_ = first.root().each(func(n node) error { texts = append(texts, n.element().text); return nil })
	first.release()
	for range 100 {
		other, err := parse(strings.NewReader("<Envelope><c>" + strings.Repeat("y", 100) + "</c></Envelope>"))
		if err != nil || outlineOf(other.root()) != `<Envelope><c>"`+strings.Repeat("y", 100)+`"</></>` {
			t.Fatalf("another answer: %v", err)
		}
		other.release()
	}
	if texts[0] != "x&" || texts[1] != "first" {
		t.Errorf("texts %q", texts)
	}
}

// FuzzParse compares parse with encoding/xml.
func FuzzParse(f *testing.F) {
	for _, text := range scannerTexts {
		if len(text) < 1000 {
			f.Add(text)
		}
	}
	f.Add(provisioned(attribute("PROVFLD_SERIAL_NO", "VDS1234567")))
	f.Fuzz(compareWithReference)
}

// BenchmarkParse measures the answer to a one-time password.
func BenchmarkParse(b *testing.B) {
	text := envelope(`<ns:authUserResponse xmlns:ns="urn:a"><results>` + success + `<resultAttribute>` + attribute("CREDFLD_USERID", "jane.doe") +
		attribute("CREDFLD_DOMAIN", "mydomain.com") + attribute("CREDFLD_SERIAL_NO", "VDS1000000-1") + `</resultAttribute><errorStack/></results></ns:authUserResponse>`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(strings.NewReader(text), "authUser"); err != nil {
			b.Fatal(err)
		}
	}
}
