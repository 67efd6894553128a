package server

import (
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestPanicsAreContained: a handler's panic ends its own connection and nothing else; it is counted and logged with its stack.
func TestPanicsAreContained(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		closes := make(chan ended, 10)
		s := v.start(t, Config{}, hooks{
			open: func(_ Conn, r *Request) {
				if r.RawQuery == "open" {
					panic("in Open")
				}
			},
			message: func(c Conn, op Op, data []byte) {
				_ = c.Send(op, data)
				if string(data) == "message" {
					panic("in Message")
				}
			},
			close: func(_ Conn, code uint16, reason string) {
				closes <- ended{code, reason}
				if code == 4999 {
					panic("in Close")
				}
			},
		})
		bystander := s.dial(t, "/ws")
		alive := func() {
			t.Helper()
			bystander.send(wsframe.Text, "alive")
			bystander.expect(wsframe.Text, "alive")
		}
		check := func(p *peer, want ended, panics uint64) {
			t.Helper()
			_ = p.Close()
			if got := receive(t, "Close", closes); got != want {
				t.Errorf("the handler was told %v, want %v", got, want)
			}
			await(t, "the panic is counted", func() bool { return s.Stats().Panics == panics })
			alive()
		}
		p := s.dial(t, "/ws?open")
		p.expectClose(wsframe.CloseInternal)
		check(p, ended{1011, "internal"}, 1)

		p = s.dial(t, "/ws")
		p.write(append(masked(wsframe.Text, true, "message"), masked(wsframe.Text, true, "behind it")...))
		p.expect(wsframe.Text, "message")
		p.expectClose(wsframe.CloseInternal)
		check(p, ended{1011, "internal"}, 2)

		p = s.dial(t, "/ws")
		p.send(wsframe.Close, "\x13\x87") // 4999
		p.expectClose(4999)
		check(p, ended{4999, ""}, 3)

		if st := s.Stats(); st.Closed["panic"] != 2 || st.Closed["client"] != 1 {
			t.Errorf("closed: %v", st.Closed)
		}
		for _, part := range []string{"in Open", "in Message", "in Close"} {
			await(t, "one log line about the panic "+part, func() bool { return s.logs.count(`panic="`+part+`"`) == 1 })
		}
		if s.logs.count("panic_test.go") == 0 {
			t.Error("no stack in the log")
		}
	})
}

// TestPanicFloodIsLoggedInMeasure: a peer that can cause a panic can't fill the disk with it.
func TestPanicFloodIsLoggedInMeasure(t *testing.T) {
	each(t, variants()[1:3], func(t *testing.T, v variant) {
		s := v.start(t, Config{}, hooks{message: func(Conn, Op, []byte) { panic("again") }})
		began := time.Now()
		const panics = 50
		for range panics {
			p := s.dial(t, "/ws")
			p.send(wsframe.Text, "x")
			p.expectClose(wsframe.CloseInternal)
			_ = p.Close()
		}
		most := logLinesPerSecond * (2 + int(time.Since(began).Seconds()))
		if n := s.logs.count("handler panicked"); n == 0 || n > most {
			t.Errorf("%d log lines for %d panics, want 1 to %d", n, panics, most)
		}
		await(t, "all are counted", func() bool { return s.Stats().Panics == panics })
	})
}
