package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts the pages of its file: on a damaged one it panics, also in goroutines
// where nothing recovers it, reads what is not mapped or never ends. What follows
// reads such a file without bbolt and without mapping it, each page once.

// FileError says why a file cannot be used as it is, and what to do.
type FileError struct{ text string }

func (e *FileError) Error() string { return e.text }

func damaged(format string, args ...any) error {
	return &FileError{"the file is damaged, " + fmt.Sprintf(format, args...) + "; move the file aside: what it holds lives ten minutes"}
}

// The layout of a file of bbolt. Numbers are in the byte order of the machine.
const (
	magic         = 0xED0CDAED
	layoutVersion = 2
	headerSize    = 16 // of a page
	elementSize   = 16 // of its table of elements
	bucketSize    = 16 // of the head of a bucket
	metaSize      = 64
	metaChecked   = 56 // bytes before the checksum

	branchFlag   = 0x01
	leafFlag     = 0x02
	metaFlag     = 0x04
	freeListFlag = 0x10
	bucketFlag   = 0x01 // of an element

	// minPageSize and pageSizes are the sizes of a page that bbolt looks for.
	minPageSize = 1 << 10
	pageSizes   = 15
	// noFreeList in a meta page says that there is no list of free pages.
	noFreeList = 1<<64 - 1
	// longCount says that the number of free pages is in their first place.
	longCount = 0xFFFF
)

// Bounds that no store comes near to. They keep a forged file from using up the
// memory.
const (
	maxFile  = 64 << 30
	maxPage  = 64 << 20
	maxDepth = 32
)

// meta is what a meta page says.
type meta struct {
	pageSize int64
	root     uint64
	freeList uint64
	pages    uint64 // of the file, also the first one that was never used
	tx       uint64
}

// readMeta returns what bbolt would begin with. It fails for a file that is shorter
// than one of its meta pages says: what is missing could be mapped, but not read.
// That somebody writes meanwhile does no harm: a file grows before its meta pages say
// so, and one of the two is whole at any time.
func readMeta(file *os.File) (meta, error) {
	first, err := metaAt(file, 0)
	if err != nil {
		return meta{}, err
	}
	second := meta{}
	if first.pageSize > 0 {
		second, err = metaAt(file, first.pageSize)
	} else {
		for i := 0; i < pageSizes && second.pageSize == 0 && err == nil; i++ {
			second, err = metaAt(file, minPageSize<<i)
		}
	}
	if err != nil {
		return meta{}, err
	}
	m := first
	if second.pageSize > 0 && (first.pageSize == 0 || second.tx > first.tx) {
		m = second
	}
	if m.pageSize == 0 {
		return meta{}, damaged("unless it belongs to another program: neither of its first two pages is valid")
	}
	info, err := file.Stat()
	if err != nil {
		return meta{}, err
	}
	if pages := max(first.pages, second.pages); pages > uint64(min(info.Size(), maxFile)/m.pageSize) {
		return meta{}, damaged("%d bytes long where it should have %d pages of %d bytes", info.Size(), pages, m.pageSize)
	}
	return m, nil
}

// metaAt reads a meta page. All is 0 if it is one that bbolt would pass over, as after
// a power failure.
func metaAt(file *os.File, offset int64) (meta, error) {
	var b [headerSize + metaSize]byte
	if _, err := file.ReadAt(b[:], offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return meta{}, err
	}
	e := binary.NativeEndian
	p, content := newPage(b[:]), b[headerSize:]
	checksum := fnv.New64a()
	checksum.Write(content[:metaChecked])
	if e.Uint32(content) != magic || e.Uint32(content[4:]) != layoutVersion || e.Uint64(content[metaChecked:]) != checksum.Sum64() {
		return meta{}, nil
	}
	m := meta{
		pageSize: int64(e.Uint32(content[8:])),
		root:     e.Uint64(content[16:]),
		freeList: e.Uint64(content[32:]),
		pages:    e.Uint64(content[40:]),
		tx:       e.Uint64(content[48:]),
	}
	if m.pageSize < minPageSize || m.pageSize > minPageSize<<(pageSizes-1) || m.pageSize&(m.pageSize-1) != 0 ||
		p.flags != metaFlag || offset%m.pageSize != 0 || p.id != uint64(offset/m.pageSize) || p.id > 1 {
		return meta{}, damaged("page %d is no meta page", p.id)
	}
	return m, nil
}

// walk is one way through the pages of a file.
type walk struct {
	file *os.File
	meta meta
	// seen holds the pages that were met, in use or free.
	seen []bool
	// pages are those from the root to the one that is looked at.
	pages [maxDepth][]byte
	// visit gets every bucket, with no key, then its keys and values, which are valid
	// until it returns.
	visit func(bucket string, key, value []byte)
}

// walkFile checks everything that bbolt relies on in a file, and fails for one that
// no Store can have written.
func walkFile(file *os.File, visit func(bucket string, key, value []byte)) error {
	m, err := readMeta(file)
	if err != nil {
		return err
	}
	w := &walk{file: file, meta: m, seen: make([]bool, m.pages), visit: visit}
	if err := w.readFreeList(); err != nil {
		return err
	}
	return w.readTree(m.root, 0, new(order), w.readBucket)
}

// readFreeList marks the free pages. Without their list, which every Store writes,
// bbolt would look for them, in a goroutine of its own.
func (w *walk) readFreeList() error {
	if w.meta.freeList == noFreeList {
		return damaged("unless it belongs to another program: it has no list of free pages")
	}
	p, err := w.read(w.meta.freeList, 0)
	if err != nil {
		return err
	}
	if p.flags != freeListFlag {
		return damaged("page %d is no list of free pages", p.id)
	}
	ids, count := p.data[headerSize:], uint64(p.count)
	if count == longCount {
		ids, count = ids[8:], binary.NativeEndian.Uint64(ids)
	}
	if count > uint64(len(ids)/8) {
		return damaged("page %d lists more free pages than it can hold", p.id)
	}
	for i := range count {
		if err := w.mark(binary.NativeEndian.Uint64(ids[8*i:])); err != nil {
			return err
		}
	}
	return nil
}

// mark notes that a page was met.
func (w *walk) mark(id uint64) error {
	if id < 2 || id >= uint64(len(w.seen)) {
		return damaged("page %d is not one of its %d pages", id, len(w.seen))
	}
	if w.seen[id] {
		return damaged("page %d is used twice", id)
	}
	w.seen[id] = true
	return nil
}

// page is a page with those that continue it, or what stands for one in a bucket.
type page struct {
	id    uint64
	flags uint16
	count uint16
	data  []byte
}

// read reads the page id, which is valid until the next one is read at depth.
func (w *walk) read(id uint64, depth int) (page, error) {
	if depth >= maxDepth {
		return page{}, damaged("page %d is %d pages deep", id, depth)
	}
	if err := w.mark(id); err != nil {
		return page{}, err
	}
	size := w.meta.pageSize
	if int64(len(w.pages[depth])) < size {
		w.pages[depth] = make([]byte, size)
	}
	offset := int64(id) * size
	if err := w.readAt(w.pages[depth][:size], offset); err != nil {
		return page{}, err
	}
	p := newPage(w.pages[depth][:size])
	if p.id != id {
		return page{}, damaged("page %d holds something else", id)
	}
	more := binary.NativeEndian.Uint32(p.data[12:])
	if int64(more) >= maxPage/size {
		return page{}, damaged("page %d goes on for %d pages", id, more)
	}
	for i := range more {
		if err := w.mark(id + 1 + uint64(i)); err != nil {
			return page{}, err
		}
	}
	if whole := int64(1+more) * size; whole > size {
		if int64(len(w.pages[depth])) < whole {
			w.pages[depth] = append(w.pages[depth], make([]byte, whole-int64(len(w.pages[depth])))...)
		}
		p.data = w.pages[depth][:whole]
		if err := w.readAt(p.data[size:], offset+size); err != nil {
			return page{}, err
		}
	}
	return p, nil
}

func (w *walk) readAt(b []byte, offset int64) error {
	_, err := w.file.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		return damaged("shorter than it was a moment ago")
	}
	return err
}

func newPage(data []byte) page {
	e := binary.NativeEndian
	return page{id: e.Uint64(data), flags: e.Uint16(data[8:]), count: e.Uint16(data[10:]), data: data}
}

// element is a key of a page: of a leaf with its value, of a branch with the page
// that begins with it.
type element struct {
	flags uint32
	child uint64
	key   []byte
	value []byte
}

// element returns the one at index i.
func (p page) element(i int) (element, error) {
	e := binary.NativeEndian
	at := headerSize + i*elementSize
	table := headerSize + int(p.count)*elementSize
	if table > len(p.data) {
		return element{}, damaged("page %d has more elements than it can hold", p.id)
	}
	b := p.data[at : at+elementSize]
	var found element
	var position, key, value uint64
	if p.flags == branchFlag {
		position, key, found.child = uint64(e.Uint32(b)), uint64(e.Uint32(b[4:])), e.Uint64(b[8:])
	} else {
		found.flags = e.Uint32(b)
		position, key, value = uint64(e.Uint32(b[4:])), uint64(e.Uint32(b[8:])), uint64(e.Uint32(b[12:]))
	}
	position += uint64(at)
	if key == 0 || found.flags&^bucketFlag != 0 || position < uint64(table) || position+key+value > uint64(len(p.data)) {
		return element{}, damaged("page %d has an element that is none", p.id)
	}
	found.key = p.data[position : position+key]
	found.value = p.data[position+key : position+key+value]
	return found, nil
}

// order is how far the keys of a tree have come.
type order struct {
	last []byte
	// again allows last itself: it was that of a branch.
	again bool
}

// next reports whether key may come next. The keys below a branch begin with its
// own or a later one.
func (o *order) next(key []byte, branch bool) bool {
	c := bytes.Compare(key, o.last)
	ok := c > 0 || c == 0 && o.again
	o.last, o.again = append(o.last[:0], key...), branch
	return ok
}

// readTree reads the tree whose root is page id, and has leaf called with every
// element of its leaves.
func (w *walk) readTree(id uint64, depth int, o *order, leaf func(e element, depth int) error) error {
	p, err := w.read(id, depth)
	if err != nil {
		return err
	}
	branch := p.flags == branchFlag
	if !branch && p.flags != leafFlag || branch && p.count == 0 {
		return damaged("page %d is no page of a tree", id)
	}
	return p.each(o, func(e element) error {
		if branch {
			return w.readTree(e.child, depth+1, o, leaf)
		}
		return leaf(e, depth)
	})
}

// each has f called with the elements of a page.
func (p page) each(o *order, f func(e element) error) error {
	for i := range int(p.count) {
		e, err := p.element(i)
		if err != nil {
			return err
		}
		if !o.next(e.key, p.flags == branchFlag) {
			return damaged("page %d has keys that are not in order", p.id)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// readBucket reads a bucket, which is in a tree of its own, or in its element if it
// is small. No bucket of a Store holds another.
func (w *walk) readBucket(e element, depth int) error {
	if e.flags != bucketFlag {
		return errForeign
	}
	if len(e.value) < bucketSize {
		return damaged("it has a bucket that is none")
	}
	name := string(e.key)
	w.visit(name, nil, nil)
	visit := func(e element) error {
		if e.flags != 0 {
			return errForeign
		}
		w.visit(name, e.key, e.value)
		return nil
	}
	if root := binary.NativeEndian.Uint64(e.value); root != 0 {
		return w.readTree(root, depth+1, new(order), func(e element, _ int) error { return visit(e) })
	}
	if len(e.value) < bucketSize+headerSize {
		return damaged("it has a bucket that is none")
	}
	p := newPage(e.value[bucketSize:])
	if p.flags != leafFlag {
		return damaged("it has a bucket that is none")
	}
	return p.each(new(order), visit)
}
