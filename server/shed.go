package server

import "slices"

// SetOverload tells the server that the machine has more to do than it can, or no longer has. While it sheds, upgrades are refused
// (503, with the second at which to come back) and Ready says no; connections that are open stay.
func (s *Server) SetOverload(to Overload) {
	to.Reasons = slices.Clone(to.Reasons)
	s.overload.Store(&to)
}

// Overload returns what SetOverload said last.
func (s *Server) Overload() Overload {
	now := s.overload.Load()
	if now == nil {
		return Overload{}
	}
	return Overload{Shed: now.Shed, Reasons: slices.Clone(now.Reasons)}
}

// shedding says whether upgrades are refused: one atomic load for each of them.
func (s *Server) shedding() bool {
	now := s.overload.Load()
	return now != nil && now.Shed
}
