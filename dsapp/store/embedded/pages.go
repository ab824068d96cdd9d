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
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
)

// bbolt does not check the pages of its file. On a damaged page it panics, possibly in a
// goroutine of its own, reads memory that is not mapped, or loops forever. The code in this
// file reads a file without bbolt, each page once, and checks everything that bbolt relies on.

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

// Pages are read by several goroutines, or a large file would keep the gateway waiting.
const (
	// maxReaders is how many goroutines at most read at each of three levels: buckets, pages below the
	// root of one, and pages below one of these.
	maxReaders = 8
	// forkedDepth is the depth in a tree from which on one goroutine reads all children of a page.
	forkedDepth = 2
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
	meta meta
	// data is the content of all pages.
	data []byte
	// seen says which pages were read or are listed as free. All goroutines share it.
	seen []atomic.Bool
	// visit is called as described for walkFile.
	visit visitor
}

// visitor is called with the name of a bucket and a nil key, and with a key and its value, which are
// valid until it returns. Several goroutines call it, also for the same bucket.
type visitor func(bucket string, key, value []byte)

// walkFile reads a whole file and checks everything that bbolt relies on. It returns an error
// for a file that no Store can have written. It calls visit for every bucket and then for
// everything in it, from several goroutines. Pages that have nothing but parts of
// values are not read if visit does not read the values.
func walkFile(file *os.File, visit visitor) error {
	m, err := readMeta(file)
	if err != nil {
		return err
	}
	// A call of the system for each page would take longer than everything else here.
	data, unmap, err := mapFile(file, int64(m.pages)*m.pageSize)
	if err != nil {
		return err
	}
	w := &walker{meta: m, data: data, seen: make([]atomic.Bool, m.pages), visit: visit}
	return errors.Join(w.readFile(), unmap())
}

// readFile reads all pages.
func (w *walker) readFile() error {
	trees := map[string]uint64{}
	err := readable(func() error {
		if err := w.readFreeList(); err != nil {
			return err
		}
		var mu sync.Mutex
		_, err := w.readTree(w.meta.root, 0, func(e element) error {
			root, err := w.readBucket(e)
			if root != 0 {
				mu.Lock()
				defer mu.Unlock()
				trees[string(e.key)] = root
			}
			return err
		})
		return err
	})
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(trees))
	return inParallel(len(names), func(i int) error {
		_, err := w.readTree(trees[names[i]], 0, func(e element) error { return w.visitElement(names[i], e) })
		return err
	})
}

// inParallel calls read with 0 to n-1, for several numbers at the same time, until one call returns an
// error. It returns one of the errors.
func inParallel(n int, read func(i int) error) error {
	found := make([]error, n)
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0), maxReaders) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && !failed.Load(); i = next.Add(1) - 1 {
				if found[i] = readable(func() error { return read(int(i)) }); found[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return cmp.Or(found...)
}

// readable calls read, and returns an error if something cannot be read.
func readable(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = damaged("%s", describe(cause))
		}
	}()
	return read()
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
}

// read returns a page.
func (w *walker) read(id uint64, depth int) (page, error) {
	if depth >= maxDepth {
		return page{}, damaged("page %d is %d pages deep", id, depth)
	}
	if err := w.mark(id); err != nil {
		return page{}, err
	}
	size := uint64(w.meta.pageSize)
	data := w.data[id*size:]
	p := newPage(data[:size])
	if p.id != id {
		return page{}, damaged("page %d holds something else", id)
	}
	more := uint64(binary.NativeEndian.Uint32(p.data[12:]))
	if more >= maxPage/size {
		return page{}, damaged("page %d goes on for %d pages", id, more)
	}
	for i := range more {
		if err := w.mark(id + 1 + i); err != nil {
			return page{}, err
		}
	}
	p.data = data[:(1+more)*size]
	return p, nil
}

func newPage(data []byte) page {
	e := binary.NativeEndian
	return page{id: e.Uint64(data), flags: e.Uint16(data[8:]), count: e.Uint16(data[10:]), data: data}
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
	if key == 0 || found.flags&^bucketFlag != 0 || position < uint64(table) || position+key+value > uint64(len(p.data)) {
		return element{}, damaged("page %d has an element that is none", p.id)
	}
	found.key = p.data[position : position+key]
	found.value = p.data[position+key : position+key+value]
	return found, nil
}

// keyRange is the range of the keys of a page and of all pages below it: from the key of its first
// element to the last key in a leaf. Both are nil if the page has no element.
type keyRange struct{ first, last []byte }

// readTree reads the tree whose root is page id and calls leaf with every element of its
// leaves, from several goroutines.
func (w *walker) readTree(id uint64, depth int, leaf func(e element) error) (keyRange, error) {
	p, err := w.read(id, depth)
	switch {
	case err != nil:
		return keyRange{}, err
	case p.flags == leafFlag:
		return p.readLeaf(leaf)
	case p.flags == branchFlag && p.count > 0:
		return w.readBranch(p, depth, leaf)
	}
	return keyRange{}, damaged("page %d is no page of a tree", id)
}

// readBranch reads what is below page p of a tree.
func (w *walker) readBranch(p page, depth int, leaf func(e element) error) (keyRange, error) {
	children := make([]keyRange, p.count)
	readChild := func(i int) error {
		e, err := p.element(i)
		if err != nil {
			return err
		}
		child, err := w.readTree(e.child, depth+1, leaf)
		if err != nil {
			return err
		}
		if child.first == nil {
			child = keyRange{e.key, e.key}
		}
		if bytes.Compare(child.first, e.key) < 0 {
			return p.disordered()
		}
		children[i] = keyRange{e.key, child.last}
		return nil
	}
	if depth < forkedDepth {
		if err := inParallel(len(children), readChild); err != nil {
			return keyRange{}, err
		}
	} else {
		for i := range children {
			if err := readChild(i); err != nil {
				return keyRange{}, err
			}
		}
	}
	for i := range children[1:] {
		if bytes.Compare(children[i].last, children[i+1].first) >= 0 {
			return keyRange{}, p.disordered()
		}
	}
	return keyRange{children[0].first, children[len(children)-1].last}, nil
}

// readLeaf calls leaf with every element of a page.
func (p page) readLeaf(leaf func(e element) error) (keys keyRange, err error) {
	for i := range int(p.count) {
		e, err := p.element(i)
		if err != nil {
			return keyRange{}, err
		}
		if bytes.Compare(e.key, keys.last) <= 0 {
			return keyRange{}, p.disordered()
		}
		if i == 0 {
			keys.first = e.key
		}
		keys.last = e.key
		if err := leaf(e); err != nil {
			return keyRange{}, err
		}
	}
	return keys, nil
}

func (p page) disordered() error { return damaged("page %d has keys that are not in order", p.id) }

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
	_, err = p.readLeaf(func(e element) error { return w.visitElement(name, e) })
	return 0, err
}

// visitElement visits an element of a bucket.
func (w *walker) visitElement(bucket string, e element) error {
	if e.flags != 0 {
		return errForeign
	}
	w.visit(bucket, e.key, e.value)
	return nil
}
