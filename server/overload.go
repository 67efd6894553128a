package server

// Overload is what whoever watches the machine tells the server.
type Overload struct {
	Shed    bool     // new connections are to be refused; without it the state is only an alarm
	Reasons []string // why, in words; empty: there is none
}
