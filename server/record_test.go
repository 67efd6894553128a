package server

import (
	"reflect"
	"testing"
)

// TestRecordSize pins what an idle connection costs: the record, without a pointer in it, so that the collector never looks.
func TestRecordSize(t *testing.T) {
	typ := reflect.TypeFor[record]()
	if size := typ.Size(); size != recordBytes {
		t.Errorf("a record has %d bytes, want %d", size, recordBytes)
	}
	var pointers func(typ reflect.Type, path string)
	pointers = func(typ reflect.Type, path string) {
		switch typ.Kind() {
		case reflect.Struct:
			for field := range typ.Fields() {
				pointers(field.Type, path+"."+field.Name)
			}
		case reflect.Array:
			pointers(typ.Elem(), path)
		case reflect.Pointer, reflect.Slice, reflect.String, reflect.Map, reflect.Chan, reflect.Func, reflect.Interface, reflect.UnsafePointer:
			t.Errorf("%s is a pointer", path)
		default: // numbers
		}
	}
	pointers(typ, "record")
	pointers(reflect.TypeFor[page](), "page")
}

// TestTable: slots come back in the order in which they were freed, each with a generation that no token knows.
func TestTable(t *testing.T) {
	var tb table
	tokens := make(map[uint64]bool)
	take := func() uint32 {
		t.Helper()
		slot, ok := tb.acquire()
		if !ok {
			t.Fatal("no slot")
		}
		token := uint64(makeToken(3, slot, tb.at(slot).load().generation()))
		if tokens[token] {
			t.Fatalf("token %x for the second time", token)
		}
		tokens[token] = true
		return slot
	}
	for want := range uint32(2 * pageRecords) {
		if slot := take(); slot != want {
			t.Fatalf("slot %d, want %d", slot, want)
		}
	}
	if tb.find(2*pageRecords) != nil || tb.find(1<<24-1) != nil {
		t.Error("found a slot that was never used")
	}
	for _, slot := range []uint32{7, 2000, 3} {
		tb.release(slot)
	}
	for _, want := range []uint32{7, 2000, 3, 2 * pageRecords} {
		if slot := take(); slot != want {
			t.Errorf("slot %d, want %d", slot, want)
		}
	}
	if tb.used != 2*pageRecords+1 {
		t.Errorf("%d used", tb.used)
	}
	r := tb.at(7)
	r.word.Store(0xffffffff<<generationShift | uint64(bitHeld))
	tb.release(7)
	if w := r.load(); w.generation() != 1 || w&bitsAll != 0 {
		t.Errorf("after the last generation comes %x, want 1: 0 is a listener's", uint64(w))
	}
	token := makeToken(254, 1<<24-1, 0xfffffffe)
	if tokenLoop(token) != 254 || tokenSlot(token) != 1<<24-1 || tokenGeneration(token) != 0xfffffffe {
		t.Errorf("token %x comes apart as %d, %d, %d", uint64(token), tokenLoop(token), tokenSlot(token), tokenGeneration(token))
	}
}
