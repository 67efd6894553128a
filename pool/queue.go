package pool

// A store holds every waiting task of a pool in one slice of fixed length, and
// chains them into lists by index. A task that moves from the list of its key
// to the list of ready tasks is relinked, not copied.
//
// Slot 0 is never used, so that index 0 means "none" and the zero list is the
// empty list. The invariant, with L the sum of the lengths of all lists:
//
//	used == L, 0 <= used <= len(nodes)-1
//	slots 1..fresh hold a task or stand in the free list; later ones were never touched
//
// Slots are handed out last in, first out: a pool that seldom has more than
// ten tasks waiting touches the memory of ten, however large its bound is.
type store[T any] struct {
	nodes []node[T]
	free  int32 // first of the slots that were given back, chained by next
	fresh int32 // highest slot ever used
	used  int
}

type node[T any] struct {
	task T
	next int32
}

// A list is a FIFO of slots of one store.
type list struct {
	head, tail int32
}

func newStore[T any](tasksMax int) store[T] {
	return store[T]{nodes: make([]node[T], tasksMax+1)}
}

// full tells whether every slot holds a task.
func (s *store[T]) full() bool { return s.used >= len(s.nodes)-1 }

// push appends task to l. The caller has asked full first.
func (s *store[T]) push(l *list, task T) {
	at := s.free
	if at != 0 {
		s.free = s.nodes[at].next
	} else {
		s.fresh++
		at = s.fresh
	}
	s.used++
	s.nodes[at] = node[T]{task: task}
	s.link(l, at)
}

// pop takes the first task of l, or reports that l is empty.
func (s *store[T]) pop(l *list) (task T, ok bool) {
	at := s.unlink(l)
	if at == 0 {
		return task, false
	}
	task = s.nodes[at].task
	// Clearing the slot lets the collector have what the task points to.
	s.nodes[at] = node[T]{next: s.free}
	s.free = at
	s.used--
	return task, true
}

// move takes the first task of from to the end of to, and reports whether
// there was one.
func (s *store[T]) move(from, to *list) bool {
	at := s.unlink(from)
	if at == 0 {
		return false
	}
	s.link(to, at)
	return true
}

func (s *store[T]) link(l *list, at int32) {
	s.nodes[at].next = 0
	if l.tail == 0 {
		l.head = at
	} else {
		s.nodes[l.tail].next = at
	}
	l.tail = at
}

func (s *store[T]) unlink(l *list) int32 {
	at := l.head
	if at == 0 {
		return 0
	}
	l.head = s.nodes[at].next
	if l.head == 0 {
		l.tail = 0
	}
	return at
}
