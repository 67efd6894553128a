package server

import (
	"testing"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestReload: what may change does so for the next frame and the next handshake, and a bad configuration changes nothing.
func TestReload(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		cfg := Config{ConnectionLimit: 100}
		s := v.start(t, cfg, Echo{})
		p := s.dial(t, "/ws")
		p.send(wsframe.Text, "0123456789")
		p.expect(wsframe.Text, "0123456789")

		bad := Config{ConnectionLimit: 1, MessageSizeLimit: 5, Path: "no slash"}
		if err := s.Reload(bad); err == nil {
			t.Error("a bad configuration was taken")
		}
		p.send(wsframe.Text, "0123456789")
		p.expect(wsframe.Text, "0123456789")

		cfg.MessageSizeLimit, cfg.ConnectionLimit, cfg.AllowedOrigins = 5, 2, []string{"https://app.example.com"}
		if err := s.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		p.send(wsframe.Text, "01234")
		p.expect(wsframe.Text, "01234")
		if r := roundTrip(t, s.addr, upgradeRequest("/ws", "Origin: https://example.com")); r.status != "403 Forbidden" {
			t.Errorf("another origin: %q", r.status)
		}
		s.dial(t, "/ws", "Origin: https://app.example.com")
		if r := roundTrip(t, s.addr, upgradeRequest("/ws")); r.status != "503 Service Unavailable" {
			t.Errorf("beyond the new limit: %q", r.status)
		}
		if s.Stats().Limit != 2 || s.Ready() == nil {
			t.Errorf("limit %d, ready %v", s.Stats().Limit, s.Ready())
		}
		p.send(wsframe.Text, "012345")
		p.expectClose(wsframe.CloseTooBig)
		_ = p.Close()

		if err := s.Reload(Config{ConnectionLimit: 100}); err != nil {
			t.Fatal(err)
		}
		s.dial(t, "/ws", "Origin: https://example.com").send(wsframe.Text, "0123456789")
	})
}
