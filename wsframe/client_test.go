package wsframe

import (
	"errors"
	"strings"
	"testing"
)

// TestClientHandshake runs both ends against each other, the response cut at every byte.
func TestClientHandshake(t *testing.T) {
	key := [16]byte{0, 1, 2, 3, 0xFF}
	h, r := parse(t, string(AppendRequest(nil, "example.com", "/ws?a=b", key, [][2]string{{"Origin", "https://example.com"}, {"X", "a\r\nb"}})), HeadLimits{})
	if r != nil || CheckUpgrade(&h) != nil || string(h.Host) != "example.com" || string(h.RawQuery) != "a=b" {
		t.Fatalf("request: %v %+v", r, CheckUpgrade(&h))
	}
	if _, count := h.Header("X"); count != 0 {
		t.Error("a field with a line break was sent")
	}
	out, err := AppendUpgrade(nil, &h, Accept{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range out {
		if n, status, err := CheckResponse(out[:i], key); n != 0 || status != 0 || err != nil {
			t.Fatalf("first %d bytes: %d %d %v", i, n, status, err)
		}
	}
	if n, status, err := CheckResponse(append(out, "frames"...), key); n != len(out) || status != 101 || err != nil {
		t.Errorf("whole: %d of %d, %d %v", n, len(out), status, err)
	}
	if _, _, err := CheckResponse(out, [16]byte{1}); !errors.Is(err, ErrAcceptMismatch) {
		t.Errorf("another key: got %v, want %v", err, ErrAcceptMismatch)
	}
}

func TestCheckResponse(t *testing.T) {
	key := [16]byte{}
	const accept = "Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI="
	cases := []struct {
		name   string
		head   string
		status int
		err    error
	}{
		{name: "accepted", head: request("HTTP/1.1 101 Switching Protocols", "upgrade: WebSocket", "Connection: keep-alive, upgrade", accept), status: 101},
		{name: "no reason phrase", head: request("HTTP/1.1 101", "Upgrade: websocket", "Connection: Upgrade", accept), status: 101},
		{name: "refused", head: request("HTTP/1.1 503 Service Unavailable", "Retry-After: 3"), status: 503},
		{name: "no Upgrade", head: request("HTTP/1.1 101 x", "Connection: Upgrade", accept), status: 101, err: ErrAcceptMismatch},
		{name: "no Connection", head: request("HTTP/1.1 101 x", "Upgrade: websocket", accept), status: 101, err: ErrAcceptMismatch},
		{name: "accept twice", head: request("HTTP/1.1 101 x", "Upgrade: websocket", "Connection: Upgrade", accept, accept), status: 101, err: ErrAcceptMismatch},
		{name: "HTTP/1.0", head: request("HTTP/1.0 200 OK"), err: ErrResponseMalformed},
		{name: "status of four digits", head: request("HTTP/1.1 1010 x"), err: ErrResponseMalformed},
		{name: "status no number", head: request("HTTP/1.1 1x1 y"), err: ErrResponseMalformed},
		{name: "status 099", head: request("HTTP/1.1 099 y"), err: ErrResponseMalformed},
		{name: "bare LF", head: "HTTP/1.1 101 x\n\nA: b\r\n\r\n", err: ErrResponseMalformed},
		{name: "no end", head: "HTTP/1.1 101 " + strings.Repeat("x", responseBytesMax), err: ErrResponseMalformed},
	}
	if acceptOf(key) != strings.TrimPrefix(accept, "Sec-WebSocket-Accept: ") {
		t.Fatalf("accept of the zero key: got %q", acceptOf(key))
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, status, err := CheckResponse([]byte(c.head), key)
			if status != c.status || !errors.Is(err, c.err) {
				t.Errorf("got %d %v, want %d %v", status, err, c.status, c.err)
			}
		})
	}
}
