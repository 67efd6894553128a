package main

import (
	"fmt"

	"github.com/pulsewheel/pulsewheel/poller"
)

const (
	// partsMax bounds the processes of one run: more than a machine of any size has use for.
	partsMax = 1024
	// handDescriptors is what the leader needs for each further process: three pipes and what tells it of the end (a pidfd).
	handDescriptors = 4
	// handsSpared are those for which spareDescriptors has room.
	handsSpared = 5
	// connectionKiB is what the kernel takes for one end of a connection: the socket, 3.8 KiB, and its entry in epoll.
	connectionKiB = 4
)

// most is how many connections one process may hold.
func (o *options) most() (int, error) {
	most, err := descriptorRoom()
	if o.perProcess > 0 {
		most = min(most, o.perProcess)
	}
	return most, err
}

// descriptorRoom is how many connections the descriptor limit leaves to a process.
func descriptorRoom() (int, error) {
	limit, err := poller.DescriptorLimit()
	if err != nil {
		return 0, err
	}
	if limit <= spareDescriptors {
		return 0, fmt.Errorf("%w: the limit of %d descriptors leaves no room for connections: raise it (ulimit -n)", errUsage, limit)
	}
	return int(min(limit-spareDescriptors, guestsMax)), nil
}

// parts divides a run among processes; part 0 is the leader's. Every process computes the same from the same flags.
func (sc scenario) parts(o *options) ([]*options, error) {
	most, err := o.most()
	if err != nil {
		return nil, err
	}
	split := sc.split
	if split == nil {
		split = splitEvenly
	}
	parts, err := split(sc, o, most)
	if err == nil && len(parts) > partsMax {
		err = tooMany(o, most)
	}
	return parts, err
}

func tooMany(o *options, most int) error {
	return fmt.Errorf("%w: %d connections%s are more than %d processes hold with %d each, the first one with less, by %d for each of the others: raise the descriptor limit (ulimit -n) or lower --connections",
		errUsage, o.connections, besides(o.guests), partsMax, most, handDescriptors)
}

// splitEvenly gives every process the same share of everything.
func splitEvenly(sc scenario, o *options, most int) ([]*options, error) {
	for n := max(ceilDiv(o.connections+o.guests, most), o.processes, 1); ; n++ {
		if n > partsMax {
			return nil, tooMany(o, most)
		}
		parts := make([]*options, n)
		fits := true
		for i := 0; i < n && fits; i++ {
			parts[i] = o.part(sc, i, n)
			fits = parts[i].connections+parts[i].guests <= roomOf(i, n, most)
		}
		if fits { // guests have some room to spare in each process, so one more may be needed
			return parts, nil
		}
	}
}

// roomOf is how many connections process i of n may hold where one that has no hands may hold most.
func roomOf(i, n, most int) int {
	if i > 0 {
		return most
	}
	room, err := descriptorRoom()
	if err != nil {
		return 0
	}
	return min(most, room-handDescriptors*max(n-1-handsSpared, 0))
}

// part is the share that process i of n has.
func (o *options) part(sc scenario, i, n int) *options {
	if n == 1 {
		return o
	}
	p := *o
	p.index = i
	p.connections = portion(o.connections, i, n)
	share := float64(p.connections) / float64(o.connections)
	p.rate, p.openRate, p.churnRate = o.rate*share, o.openRate*share, o.churnRate*share
	p.opening = max(portion(o.opening, i, n), 1)
	p.steps = nil
	for _, step := range o.steps {
		p.steps = append(p.steps, portion(step, i, n))
	}
	if sc.prepare != nil {
		sc.prepare(&p) // what follows from the flags follows from the shares; its rules have been asked already
	}
	return &p
}

// portion is the share of one in n, so that all shares add up to the total and differ by one at most.
func portion(total, i, n int) int { return total*(i+1)/n - total*i/n }

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// besides names the guests among what needs descriptors.
func besides(guests int) string {
	if guests == 0 {
		return ""
	}
	return fmt.Sprintf(" and up to %d beside them", guests)
}

// checkMemory refuses a run whose sockets the machine has no memory for: the kernel would end somebody midway.
func checkMemory(o *options) error {
	ends := 1
	if o.target.loopback {
		ends = 2
	}
	available, err := memoryAvailable()
	if err != nil {
		return nil //nolint:nilerr // where it can't be known nothing is refused
	}
	if need := int64(o.connections+o.guests) * int64(ends) * connectionKiB << 10; need > available {
		return fmt.Errorf("%w: the kernel needs about %d MiB for %d connections%s, %d MiB of memory are available: lower --connections",
			errUsage, need>>20, o.connections, besides(o.guests), available>>20)
	}
	return nil
}
