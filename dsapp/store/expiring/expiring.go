// Package expiring has a map whose values have an end.
package expiring

import (
	"container/heap"
	"time"
)

// Map maps keys to values, each with the time of its end. It has no clock: a value that has
// ended stays until Expire is called. New makes a Map; the zero value cannot be used. A Map is
// not safe for concurrent use.
type Map[V any] struct {
	entries map[string]*entry[V]
	order   byEnd[V]
}

// entry is a value with its key and its end.
type entry[V any] struct {
	key   string
	value V
	end   time.Time
	index int // index in Map.order
}

// New returns an empty Map.
func New[V any]() *Map[V] { return &Map[V]{entries: map[string]*entry[V]{}} }

// Len returns the number of values.
func (m *Map[V]) Len() int { return len(m.order) }

// Get returns the value of key and its end, and reports whether there is one.
func (m *Map[V]) Get(key string) (value V, end time.Time, ok bool) {
	e, ok := m.entries[key]
	if !ok {
		return value, end, false
	}
	return e.value, e.end, true
}

// Put sets the value of key and its end.
func (m *Map[V]) Put(key string, value V, end time.Time) {
	if e, ok := m.entries[key]; ok {
		e.value, e.end = value, end
		heap.Fix(&m.order, e.index)
		return
	}
	e := &entry[V]{key: key, value: value, end: end}
	m.entries[key] = e
	heap.Push(&m.order, e)
}

// Delete removes the value of key, if there is one.
func (m *Map[V]) Delete(key string) {
	if e, ok := m.entries[key]; ok {
		m.drop(e)
	}
}

// First returns the key of the value that ends first and its end, and reports whether there
// is a value.
func (m *Map[V]) First() (key string, end time.Time, ok bool) {
	if len(m.order) == 0 {
		return "", time.Time{}, false
	}
	return m.order[0].key, m.order[0].end, true
}

// DeleteFirst removes the value that ends first, if there is any.
func (m *Map[V]) DeleteFirst() {
	if len(m.order) > 0 {
		m.drop(m.order[0])
	}
}

// Expire removes up to limit values whose end is not after now.
func (m *Map[V]) Expire(now time.Time, limit int) {
	for range limit {
		if len(m.order) == 0 || now.Before(m.order[0].end) {
			return
		}
		m.drop(m.order[0])
	}
}

func (m *Map[V]) drop(e *entry[V]) {
	heap.Remove(&m.order, e.index)
	delete(m.entries, e.key)
}

// byEnd is a heap of entries with the one that ends first at the top.
type byEnd[V any] []*entry[V]

// Len implements heap.Interface.
func (b byEnd[V]) Len() int { return len(b) }

// Less implements heap.Interface.
func (b byEnd[V]) Less(i, j int) bool { return b[i].end.Before(b[j].end) }

// Swap implements heap.Interface.
func (b byEnd[V]) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].index, b[j].index = i, j
}

// Push implements heap.Interface.
func (b *byEnd[V]) Push(x any) {
	e := x.(*entry[V])
	e.index = len(*b)
	*b = append(*b, e)
}

// Pop implements heap.Interface.
func (b *byEnd[V]) Pop() any {
	last := len(*b) - 1
	e := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	return e
}

var _ heap.Interface = (*byEnd[int])(nil)
