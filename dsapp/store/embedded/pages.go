package embedded

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// bbolt does not check the pages of its file. On a damaged page it panics, possibly in a
// goroutine of its own, reads memory that is not mapped, or loops forever. The code in this
// file reads a file without bbolt and without mapping it, each page once, and checks
// everything that bbolt relies on.

// FileError is the error for a file that cannot be used. Its text says why, and what to do.
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

	// minPageSize is the smallest size of a page that bbolt tries, and pageSizes is the
	// number of sizes, each twice the one before.
	minPageSize = 1 << 10
	pageSizes   = 15
	// noFreeList is the value in a meta page that means that there is no list of free
	// pages.
	noFreeList = 1<<64 - 1
	// longCount is the count of a list of free pages whose first element is its length.
	longCount = 0xFFFF
)

// Limits that no store comes near to. Without them a forged file could exhaust the memory.
const (
	maxFile  = 64 << 30
	maxPage  = 64 << 20
	maxDepth = 32
)

// meta is the content of a meta page.
type meta struct {
	pageSize int64
	root     uint64 // page of the root bucket
	freeList uint64 // page of the list of free pages
	pages    uint64 // number of pages that were ever used
	tx       uint64 // number of the transaction that wrote the meta page
}

// readMeta returns the meta page that bbolt would use. It returns an error if the file is
// shorter than one of its meta pages says: bbolt would map the missing part, and reading it
// would fault. A process may write to the file meanwhile: it extends the file before it writes
// a meta page, and one of the two meta pages is valid at any time.
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

// metaAt reads the meta page at an offset. It returns the zero meta for a page that bbolt
// would ignore, such as one that a power failure left incomplete.
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

// walker reads the pages of a tree.
type walker struct {
	file *os.File
	meta meta
	// seen says which pages were read or are listed as free. All walkers of a file share it.
	seen []atomic.Bool
	// pages has a buffer for each page from the root to the one that is being read.
	pages [maxDepth][]byte
	// visit is called as described for walkFile.
	visit visitor
	// values says that visit needs the values.
	values bool
	// inBucket says that the tree is that of a bucket.
	inBucket bool
}

// visitor is called with the name of a bucket and a nil key, and with a key and its value, which are
// valid until it returns.
type visitor func(bucket string, key, value []byte)

// walkFile reads a whole file and checks everything that bbolt relies on. It returns an error
// for a file that no Store can have written. It calls visit for every bucket and then for
// everything in it, for several buckets at the same time. Without values, a value may be nil, and
// pages that have nothing but parts of values are not read.
func walkFile(file *os.File, values bool, visit visitor) error {
	m, err := readMeta(file)
	if err != nil {
		return err
	}
	w := &walker{file: file, meta: m, seen: make([]atomic.Bool, m.pages), visit: visit, values: values}
	if err := w.readFreeList(); err != nil {
		return err
	}
	trees := map[string]uint64{}
	err = w.readTree(m.root, 0, new(keyOrder), func(e element, _ int) error {
		root, err := w.readBucket(e)
		if root != 0 {
			trees[string(e.key)] = root
		}
		return err
	})
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(trees))
	found := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			defer func() {
				if cause := recover(); cause != nil {
					found[i] = damaged("%s", describe(cause))
				}
			}()
			w := &walker{file: file, meta: m, seen: w.seen, visit: visit, values: values, inBucket: true}
			found[i] = w.readTree(trees[name], 0, new(keyOrder), func(e element, _ int) error { return w.visitElement(name, e) })
		})
	}
	wg.Wait()
	return cmp.Or(found...)
}

// readFreeList marks the free pages. Every Store writes a list of them. Without it, bbolt would
// read all pages in a goroutine of its own.
func (w *walker) readFreeList() error {
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

// mark marks a page as seen. It returns an error if it was seen before.
func (w *walker) mark(id uint64) error {
	if id < 2 || id >= uint64(len(w.seen)) {
		return damaged("page %d is not one of its %d pages", id, len(w.seen))
	}
	if w.seen[id].Swap(true) {
		return damaged("page %d is used twice", id)
	}
	return nil
}

// page is a page with its overflow pages, or the page inside a small bucket.
type page struct {
	id    uint64
	flags uint16
	count uint16 // number of elements
	data  []byte // including the header
	size  int    // of the whole page; data may lack its end
}

// read reads a page. It is valid until another page is read at the same depth.
func (w *walker) read(id uint64, depth int) (page, error) {
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
	p.size = int(1+more) * int(size)
	if wanted := w.wanted(p); wanted > len(p.data) {
		if len(w.pages[depth]) < wanted {
			w.pages[depth] = append(w.pages[depth], make([]byte, wanted-len(w.pages[depth]))...)
		}
		p.data = w.pages[depth][:wanted]
		if err := w.readAt(p.data[size:], offset+size); err != nil {
			return page{}, err
		}
	}
	return p, nil
}

// wanted returns how many bytes of p are to be read, of which the first page is. If the values are
// not needed, these are the bytes up to the end of the last key.
func (w *walker) wanted(p page) int {
	table := headerSize + int(p.count)*elementSize
	if w.values || !w.inBucket || p.flags != leafFlag || p.count == 0 || table > len(p.data) {
		return p.size
	}
	last := p.data[table-elementSize : table]
	e := binary.NativeEndian
	return min(p.size, table-elementSize+int(e.Uint32(last[4:]))+int(e.Uint32(last[8:])))
}

func (w *walker) readAt(b []byte, offset int64) error {
	_, err := w.file.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		return damaged("shorter than it was a moment ago")
	}
	return err
}

func newPage(data []byte) page {
	e := binary.NativeEndian
	return page{id: e.Uint64(data), flags: e.Uint16(data[8:]), count: e.Uint16(data[10:]), data: data, size: len(data)}
}

// element is an element of a page: a key with its value in a leaf, or with the number of the
// child page that begins with it in a branch.
type element struct {
	flags uint32
	child uint64
	key   []byte
	value []byte
}

// element returns element i.
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
	if key == 0 || found.flags&^bucketFlag != 0 || position < uint64(table) || position+key+value > uint64(p.size) || position+key > uint64(len(p.data)) {
		return element{}, damaged("page %d has an element that is none", p.id)
	}
	found.key = p.data[position : position+key]
	if position+key+value <= uint64(len(p.data)) {
		found.value = p.data[position+key : position+key+value]
	}
	return found, nil
}

// keyOrder checks that the keys of a tree are in order.
type keyOrder struct {
	last []byte
	// lastAllowed says that the next key may be equal to last, because last is the key of a
	// branch.
	lastAllowed bool
}

// next reports whether key may come next. The first key in the child of a branch's element is
// the element's key or a greater one.
func (o *keyOrder) next(key []byte, branch bool) bool {
	c := bytes.Compare(key, o.last)
	ok := c > 0 || c == 0 && o.lastAllowed
	o.last, o.lastAllowed = append(o.last[:0], key...), branch
	return ok
}

// readTree reads the tree whose root is page id and calls leaf with every element of its
// leaves.
func (w *walker) readTree(id uint64, depth int, o *keyOrder, leaf func(e element, depth int) error) error {
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

// each calls f with every element of a page.
func (p page) each(o *keyOrder, f func(e element) error) error {
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

// readBucket returns the root of the tree of a bucket. A small bucket has one page in the value of
// its element instead: readBucket reads that and returns 0. A Store has no bucket in another.
func (w *walker) readBucket(e element) (root uint64, err error) {
	if e.flags != bucketFlag {
		return 0, errForeign
	}
	if len(e.value) < bucketSize {
		return 0, damaged("it has a bucket that is none")
	}
	name := string(e.key)
	w.visit(name, nil, nil)
	if root := binary.NativeEndian.Uint64(e.value); root != 0 {
		return root, nil
	}
	if len(e.value) < bucketSize+headerSize {
		return 0, damaged("it has a bucket that is none")
	}
	p := newPage(e.value[bucketSize:])
	if p.flags != leafFlag {
		return 0, damaged("it has a bucket that is none")
	}
	return 0, p.each(new(keyOrder), func(e element) error { return w.visitElement(name, e) })
}

// visitElement visits an element of a bucket.
func (w *walker) visitElement(bucket string, e element) error {
	if e.flags != 0 {
		return errForeign
	}
	w.visit(bucket, e.key, e.value)
	return nil
}
