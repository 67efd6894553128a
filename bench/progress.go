package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const (
	// barCells is the width of the bar.
	barCells = 30
	// plainEvery is how often a line is written where there is no terminal.
	plainEvery = int64(5 * time.Second)
)

// progress shows how far a run is: a bar on a terminal, a plain line now and then elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	shownAt  int64
	stage    string
	drawn    bool
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			p.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

// show is called some ten times a second with what is going on and how much of it is done.
func (p *progress) show(at int64, stage string, have, want int) {
	if want < 1 {
		return
	}
	percent := min(100*have/want, 100)
	if p.terminal {
		full := barCells * percent / 100
		fmt.Fprintf(p.w, "\r\x1b[K%-22s [%s%s] %3d %%", stage, strings.Repeat("#", full), strings.Repeat(".", barCells-full), percent)
		p.drawn = true
		return
	}
	if p.stage != stage { // the first line of a stage comes only if it lasts
		p.stage, p.shownAt = stage, at
	}
	if at-p.shownAt >= plainEvery {
		p.shownAt = at
		fmt.Fprintf(p.w, "%s: %d %%\n", stage, percent)
	}
}

// done clears the bar away.
func (p *progress) done() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}
