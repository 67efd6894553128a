package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/pulsewheel/pulsewheel/monitor"
	"github.com/pulsewheel/pulsewheel/server"
)

// constant stands for a *server.Server here, so that the figures are always the same.
type constant struct{}

func (constant) Stats() server.Stats { return server.Stats{Active: 2, Node: "example"} }
func (constant) Ready() error        { return nil }

func Example() {
	l, err := monitor.Listen("127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	m := monitor.New(monitor.Config{StatsInterval: time.Minute}, constant{})
	watching, stop := context.WithCancel(context.Background())
	defer stop()
	go m.Run(watching)
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()

	res, err := http.Get("http://" + l.Addr().String() + "/readyz")
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close() // An answer that was read.
	fmt.Print(res.Status, ": ", string(body))

	http.DefaultClient.CloseIdleConnections()
	if err := m.Shutdown(context.Background()); err != nil {
		fmt.Println(err)
	}
	fmt.Println(errors.Is(<-served, http.ErrServerClosed))
	// Output:
	// 200 OK: ok
	// true
}
