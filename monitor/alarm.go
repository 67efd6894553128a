package monitor

import "fmt"

// alarm remembers whether the machine is overloaded. Between the loads at which it begins and ends nothing changes.
type alarm struct {
	factor     float64 // times the cores; 0: no alarm
	overloaded bool
}

// observe takes one reading of the 1-minute load average and reports whether the state changed.
func (a *alarm) observe(load float64, cores int) (changed bool) {
	limit := a.factor * float64(cores)
	was := a.overloaded
	switch {
	case a.factor <= 0:
		a.overloaded = false
	case load >= limit:
		a.overloaded = true
	case load < recoveryShare*limit:
		a.overloaded = false
	}
	return a.overloaded != was
}

// reason says why the alarm rings.
func (a *alarm) reason(load float64, cores int) string {
	return fmt.Sprintf("load1 %.2f reached %.2f (%g x %d cores)", load, a.factor*float64(cores), a.factor, cores)
}
