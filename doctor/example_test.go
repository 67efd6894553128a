package doctor_test

import (
	"errors"
	"fmt"

	"github.com/pulsewheel/pulsewheel/doctor"
)

func ExampleExamine() {
	host := doctor.Host{ // a zero Host is this machine
		Read:        func(string) ([]byte, error) { return nil, errors.ErrUnsupported },
		Descriptors: func() (soft, hard uint64, err error) { return 1024, 4096, nil },
	}
	for _, f := range doctor.Examine(host, 100_000) {
		if f.State == doctor.Short {
			fmt.Printf("%s: %s, short by %s\n%s\n", f.Check, f.Have, f.Short, f.Fix)
		}
	}
	// Output:
	// descriptors, hard limit: 4096, short by 106928
	// LimitNOFILE=111024 in the unit's [Service]; in a shell: ulimit -n 111024
}
