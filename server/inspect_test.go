package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// userOfQuery makes the query of a request the user of its connection.
func userOfQuery(r *Request) (Accept, error) { return Accept{User: r.Query().Get("user")}, nil }

// listAll walks through a listing page by page.
func listAll(s *Server, limit int, user string, between func()) (ids []string) {
	from := Place(0)
	for {
		page := s.Inspect(from, limit, user)
		for _, info := range page.Connections {
			ids = append(ids, info.ID)
		}
		if page.Next == 0 {
			return ids
		}
		from = page.Next
		if between != nil {
			between()
		}
	}
}

// Every connection that stays is listed once, and only once, while others open and close between the pages.
func TestInspectSurvivesChange(t *testing.T) {
	s := start(t, Config{Loops: 3, Upgrade: userOfQuery, HandlerInline: true}, Echo{})
	staying := map[string]bool{}
	var leaving []*peer
	for i := range 40 {
		p := s.dial(t, fmt.Sprintf("/ws?user=u%d", i%2))
		if i%4 == 3 {
			leaving = append(leaving, p)
		}
	}
	await(t, "all open", func() bool { return s.open() == 40 })
	gone := map[string]bool{}
	ids := listAll(s.Server, 5, "", func() {
		if len(leaving) == 0 {
			return
		}
		for c := range s.Conns() {
			if c.RemoteAddr().String() == leaving[0].LocalAddr().String() {
				gone[c.ID()] = true
			}
		}
		before := s.open()
		leaving[0].Close()
		await(t, "one gone", func() bool { return s.open() == before-1 })
		leaving = leaving[1:]
		s.dial(t, "/ws?user=new")
		await(t, "another one", func() bool { return s.open() == before })
	})
	for c := range s.Conns() {
		if c.User() != "new" {
			staying[c.ID()] = true
		}
	}
	listed := map[string]int{}
	for _, id := range ids {
		if listed[id]++; listed[id] > 1 {
			t.Errorf("%s is listed twice", id)
		}
	}
	for id := range staying {
		if listed[id] != 1 {
			t.Errorf("%s stayed and is listed %d times", id, listed[id])
		}
	}
}

func TestInspectFilters(t *testing.T) {
	s := start(t, Config{Loops: 2, Upgrade: userOfQuery, HandlerInline: true}, Echo{})
	for i := range 12 {
		s.dial(t, fmt.Sprintf("/ws?user=u%d", i%3))
	}
	await(t, "all open", func() bool { return s.open() == 12 })
	tests := []struct {
		name, user string
		limit      int
		want       int
	}{
		{"everybody", "", 100, 12},
		{"page by page", "", 1, 12},
		{"one user", "u1", 100, 4},
		{"one user page by page", "u1", 1, 4},
		{"nobody", "u9", 3, 0},
		{"part of a name", "u", 3, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := len(listAll(s.Server, test.limit, test.user, nil)); got != test.want {
				t.Errorf("%d connections, want %d", got, test.want)
			}
		})
	}
}

// A place out of nowhere, or out of another server's listing, is an end and no fault.
func TestInspectTakesAnyPlace(t *testing.T) {
	s := start(t, Config{Loops: 2}, nil)
	s.dial(t, "/ws")
	await(t, "open", func() bool { return s.open() == 1 })
	for _, place := range []Place{1, 1<<24 - 1, 1 << 24, 2 << 24, 255 << 24, 1 << 40, ^Place(0)} {
		if page := s.Inspect(place, 10, ""); page.Next != 0 {
			t.Errorf("place %#x goes on at %#x", place, page.Next)
		}
	}
	idle, err := New(Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if page := idle.Inspect(0, 10, ""); len(page.Connections) != 0 || page.Next != 0 {
		t.Error("a server that doesn't serve lists connections")
	}
}

func TestLookup(t *testing.T) {
	s := start(t, Config{Loops: 2}, nil)
	s.dial(t, "/ws")
	s.dial(t, "/ws")
	await(t, "open", func() bool { return s.open() == 2 })
	for c := range s.Conns() {
		if found, ok := s.Lookup(c.ID()); !ok || found != c {
			t.Errorf("Lookup(%s) = %v, %v", c.ID(), found, ok)
		}
		if _, ok := s.Lookup(strings.ToUpper(c.ID()) + "0"); ok {
			t.Error("a longer ID was found")
		}
	}
	for _, id := range []string{"", "0", "0000000000000000", "zzzzzzzzzzzzzzzz", "-000000000000001", "+000000000000001"} {
		if _, ok := s.Lookup(id); ok {
			t.Errorf("%q was found", id)
		}
	}
}

// Looking must not hold up a loop: it allocates nothing, whatever it walks over.
func TestLookupAllocatesNothing(t *testing.T) {
	s := start(t, Config{}, nil)
	for range 20 {
		s.dial(t, "/ws")
	}
	await(t, "open", func() bool { return s.open() == 20 })
	if n := testing.AllocsPerRun(100, func() { s.Lookup("1234567890abcdef") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSendUser(t *testing.T) {
	s := start(t, Config{Upgrade: userOfQuery, HandlerInline: true}, Echo{})
	ann, other := s.dial(t, "/ws?user=ann"), s.dial(t, "/ws?user=bob")
	await(t, "open", func() bool { return s.open() == 2 })
	if n, err := s.SendUser("ann", Text, []byte("hi")); n != 1 || err != nil {
		t.Errorf("reached %d, %v", n, err)
	}
	if n, err := s.SendUser("eve", Text, []byte("hi")); n != 0 || err != nil {
		t.Errorf("reached %d, %v for nobody", n, err)
	}
	if _, err := s.SendUser("ann", Text, []byte{0xff}); !errors.Is(err, ErrEncoding) {
		t.Errorf("not UTF-8: %v", err)
	}
	ann.expect(wsframe.Text, "hi")
	other.quiet(50 * time.Millisecond)
}

func TestKick(t *testing.T) {
	s := start(t, Config{}, nil)
	p := s.dial(t, "/ws")
	await(t, "open", func() bool { return s.open() == 1 })
	for c := range s.Conns() {
		c.Kick()
	}
	if reason := p.expectClose(wsframe.CloseKicked); reason != "kicked" {
		t.Errorf("reason %q", reason)
	}
}

// millionRecords is a server with a million open connections that have no sockets: as far as a listing can see.
func millionRecords(b *testing.B) *Server {
	b.Helper()
	s, err := New(Config{Listen: []string{"none"}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	l := newLoop(s, 0, &osSys{began: s.began, clock: s.clock})
	s.loops = []*loop{l}
	for range 1_000_000 {
		slot, _ := l.table.acquire()
		r := l.table.at(slot)
		r.id.Store(uint64(slot)<<20 | 1)
		r.set(bitLive)
	}
	close(s.started)
	return s
}

// What an operator's question costs at a million connections; all of it on the goroutine that asks.
func BenchmarkInspectMillion(b *testing.B) {
	s := millionRecords(b)
	b.Run("page of 1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if page := s.Inspect(Place(500_000), 1000, ""); len(page.Connections) != 1000 {
				b.Fatal(len(page.Connections))
			}
		}
	})
	b.Run("page without a match", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if page := s.Inspect(0, 1000, "nobody"); len(page.Connections) != 0 || page.Next == 0 {
				b.Fatal(len(page.Connections))
			}
		}
	})
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := s.Lookup(connID(999_999<<20 | 1)); !ok {
				b.Fatal("not found")
			}
		}
	})
}
