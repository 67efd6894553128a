package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// adminPatience is how long a running server may take to answer.
	adminPatience = 10 * time.Second
	// adminAnswerBytesMax is more than any answer to what is asked here.
	adminAnswerBytesMax = 64 << 10
)

// drain has a running server begin or end a drain.
func drain(p process, o adminOptions, begin bool) int {
	if o.AdminListen == "" {
		return report(p, []string{"admin-listen: the server's admin listener is needed"})
	}
	token, err := readToken(o.AdminTokenFile)
	if err != nil {
		return report(p, []string{"admin-token-file: " + err.Error()})
	}
	method, done := http.MethodDelete, "the server takes connections again"
	if begin {
		method, done = http.MethodPost, "the server drains"
	}
	if err := askAdmin(o.AdminListen, token, method, "/api/v1/drain"); err != nil {
		fmt.Fprintf(p.stderr, "pulsewheel: %s\n", oneLine(err.Error()))
		return exitFault
	}
	fmt.Fprintln(p.stdout, done)
	return exitOK
}

// askAdmin makes one request to the admin listener of a running server.
func askAdmin(address, token, method, path string) error {
	network, host := "tcp", address
	if socket, isUnix := strings.CutPrefix(address, "unix:"); isUnix {
		network, address, host = "unix", socket, "localhost"
	}
	client := http.Client{Timeout: adminPatience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	r, err := http.NewRequestWithContext(context.Background(), method, "http://"+host+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("admin-listen: %w", err)
	}
	r.Header.Set("Content-Type", "application/json") // what no web page could send
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it was read
	body, err := io.ReadAll(io.LimitReader(res.Body, adminAnswerBytesMax))
	if err != nil {
		return err
	}
	if res.StatusCode == http.StatusOK {
		return nil
	}
	var refusal struct {
		Error struct{ Message string }
	}
	if json.Unmarshal(body, &refusal) == nil && refusal.Error.Message != "" {
		return fmt.Errorf("%s: %s", res.Status, refusal.Error.Message)
	}
	return fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
}
