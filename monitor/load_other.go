//go:build !linux

package monitor

import "errors"

// systemLoad would need a sysctl whose layout differs between systems; the alarm is off without it.
func systemLoad() (load float64, cores int, err error) { return 0, 0, errors.ErrUnsupported }
