package soap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Limits of an answer. The longest expected value is an encrypted activation message of some
// 8 kB.
const (
	maxAnswer     = 1 << 20       // bytes
	maxToken      = maxAnswer / 8 // bytes of one tag, text or comment
	maxDepth      = 32
	maxElements   = 10_000
	maxAttributes = 32 // XML attributes of one element

	// maxKept is how large the buffer of a tree may be, in bytes, that is used again.
	maxKept = 64 << 10
)

// tree is a document. Its memory is used again after release.
type tree struct {
	reader   io.LimitedReader
	buffer   bytes.Buffer
	elements []element // in document order
}

// element is an XML element without its namespace and its XML attributes.
type element struct {
	name string // without prefix
	text string // empty if there are children
	// end is the index of the first element that is not below this one.
	end      int
	children bool
}

// node is an element of a tree.
type node struct {
	tree *tree
	at   int
}

var trees = sync.Pool{New: func() any { return new(tree) }}

// parse reads a SOAP envelope from r up to its end. A failure of r is a *ReadError. No error
// contains text of the document. The tree must be released.
func parse(r io.Reader) (*tree, error) {
	t := trees.Get().(*tree)
	if err := t.read(r); err != nil {
		t.release()
		return nil, err
	}
	return t, nil
}

func (t *tree) read(r io.Reader) error {
	t.reader = io.LimitedReader{R: r, N: maxAnswer + 1}
	if _, err := t.buffer.ReadFrom(&t.reader); err != nil {
		return &ReadError{err}
	}
	if t.buffer.Len() > maxAnswer {
		return fmt.Errorf("answer longer than %d bytes", maxAnswer)
	}
	s := scanner{text: t.buffer.String(), elements: t.elements}
	err := s.document()
	t.elements = s.elements
	return err
}

// release ends the use of the tree. The texts of its elements remain valid.
func (t *tree) release() {
	t.reader.R = nil
	content := t.buffer.Bytes()
	clear(content) // it may contain an activation message
	clear(t.elements)
	if cap(content) > maxKept || cap(t.elements) > maxElements/8 {
		return
	}
	t.buffer.Reset()
	t.elements = t.elements[:0]
	trees.Put(t)
}

func (t *tree) root() node { return node{t, 0} }

func (n node) element() *element { return &n.tree.elements[n.at] }

func (n node) name() string { return n.element().name }

// value returns the text of an element that has no children.
func (n node) value() (string, error) {
	if n.element().children {
		return "", errors.New("element where a value is expected")
	}
	return n.element().text, nil
}

// each calls read for each child until one call fails.
func (n node) each(read func(node) error) error {
	for at, end := n.at+1, n.element().end; at < end; at = n.tree.elements[at].end {
		if err := read(node{n.tree, at}); err != nil {
			return err
		}
	}
	return nil
}

// ReadError says that reading an answer failed before its end.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return "reading the answer: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ReadError) Unwrap() error { return e.Err }
