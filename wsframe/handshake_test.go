package wsframe

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// request builds a head from a request line and fields.
func request(line string, fields ...string) string {
	return strings.Join(append([]string{line}, fields...), "\r\n") + "\r\n\r\n"
}

// upgradeFields are those of a valid upgrade.
func upgradeFields() []string {
	return []string{
		"Host: example.com", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}
}

// with replaces the field of that name, or removes it if field is empty, and appends more.
func with(name, field string, more ...string) []string {
	fields := slices.DeleteFunc(upgradeFields(), func(f string) bool { return strings.HasPrefix(f, name+":") })
	if field != "" {
		fields = append(fields, field)
	}
	return append(fields, more...)
}

// parse parses a whole head.
func parse(t testing.TB, head string, lim HeadLimits) (Head, *Refusal) {
	t.Helper()
	scanned := 0
	h, n, err := ParseHead([]byte(head), &scanned, lim)
	if err != nil {
		r, ok := errors.AsType[*Refusal](err)
		if !ok || n != 0 {
			t.Fatalf("%v of type %T with n %d", err, err, n)
		}
		return h, r
	}
	if n != len(head) {
		t.Fatalf("parsed %d of %d bytes of %q", n, len(head), head)
	}
	return h, nil
}

// TestCheckUpgrade has a row for each rule of RFC 6455, section 4.2.1, and for what else an upgrade must not have.
func TestCheckUpgrade(t *testing.T) {
	const get = "GET /ws HTTP/1.1"
	cases := []struct {
		name   string
		head   string
		status int // 0: accepted
		header [][2]string
		hint   bool
	}{
		{name: "valid", head: request(get, upgradeFields()...)},
		{name: "browser", head: browserHead},
		{name: "any case", head: request(get, "HOST: a", "UPGRADE: WebSocket", "connection: keep-alive, UPGRADE", "sec-websocket-version: 13", "SEC-WEBSOCKET-KEY: AQIDBAUGBwgJCgsMDQ4PEA==")},
		{name: "key with stray bits at its end", head: request(get, with("Sec-WebSocket-Key", "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC==")...)},
		{name: "lists over several lines", head: request(get, with("Connection", "Connection: keep-alive", "Connection: Upgrade", "Upgrade: h2c")...)},
		{name: "upgrade as a list", head: request(get, with("Upgrade", "Upgrade: h2c, websocket")...)},
		{name: "Content-Length: 0", head: request(get, append(upgradeFields(), "Content-Length: 0")...)},
		{name: "one Origin", head: request(get, append(upgradeFields(), "Origin: null")...)},

		{name: "item 1 POST", head: request("POST /ws HTTP/1.1", upgradeFields()...), status: 405, header: [][2]string{{"Allow", "GET"}}},
		{name: "item 1 HEAD", head: request("HEAD /ws HTTP/1.1", upgradeFields()...), status: 405, header: [][2]string{{"Allow", "GET"}}},
		{name: "item 1 lower case get", head: request("get /ws HTTP/1.1", upgradeFields()...), status: 405, header: [][2]string{{"Allow", "GET"}}},
		{name: "item 1 HTTP/1.0", head: request("GET /ws HTTP/1.0", upgradeFields()...), status: 400, hint: true},
		{name: "nothing of an upgrade", head: request(get, "Host: a"), status: 426, header: [][2]string{{"Upgrade", "websocket"}}},
		{name: "another upgrade", head: request(get, "Host: a", "Connection: Upgrade", "Upgrade: h2c"), status: 426, header: [][2]string{{"Upgrade", "websocket"}}},
		{name: "item 3 no Upgrade", head: request(get, with("Upgrade", "")...), status: 400, hint: true},
		{name: "item 3 other Upgrade", head: request(get, with("Upgrade", "Upgrade: websockets")...), status: 400, hint: true},
		{name: "item 4 no Connection", head: request(get, with("Connection", "")...), status: 400, hint: true},
		{name: "item 4 Connection: close", head: request(get, with("Connection", "Connection: close")...), status: 400, hint: true},
		{name: "both dropped by a proxy", head: request(get, "Host: a", "Connection: close", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), status: 400, hint: true},
		{name: "item 5 no key", head: request(get, with("Sec-WebSocket-Key", "")...), status: 400},
		{name: "item 5 two keys", head: request(get, append(upgradeFields(), "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")...), status: 400},
		{name: "item 5 key of 15 bytes", head: request(get, with("Sec-WebSocket-Key", "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4P")...), status: 400},
		{name: "item 5 key of 17 bytes", head: request(get, with("Sec-WebSocket-Key", "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEBE=")...), status: 400},
		{name: "item 5 key no base64", head: request(get, with("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!==")...), status: 400},
		{name: "item 5 empty key", head: request(get, with("Sec-WebSocket-Key", "Sec-WebSocket-Key:")...), status: 400},
		{name: "item 6 no version", head: request(get, with("Sec-WebSocket-Version", "")...), status: 400, header: [][2]string{{"Sec-WebSocket-Version", "13"}}},
		{name: "item 6 two versions", head: request(get, append(upgradeFields(), "Sec-WebSocket-Version: 13")...), status: 400, header: [][2]string{{"Sec-WebSocket-Version", "13"}}},
		{name: "item 6 version 8", head: request(get, with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8")...), status: 426, header: [][2]string{{"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}}},
		{name: "item 6 version 13 among others", head: request(get, with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 13, 8")...), status: 426, header: [][2]string{{"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}}},
		{name: "body by length", head: request(get, append(upgradeFields(), "Content-Length: 5")...), status: 400},
		{name: "two lengths", head: request(get, append(upgradeFields(), "Content-Length: 0", "Content-Length: 0")...), status: 400},
		{name: "chunked body", head: request(get, append(upgradeFields(), "Transfer-Encoding: chunked")...), status: 400},
		{name: "two Origins", head: request(get, append(upgradeFields(), "Origin: https://a", "Origin: https://b")...), status: 400},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h, r := parse(t, c.head, HeadLimits{})
			if r != nil {
				t.Fatal(r)
			}
			r = CheckUpgrade(&h)
			if c.status == 0 {
				if r != nil {
					t.Fatal(r)
				}
				acceptedByClient(t, &h)
				return
			}
			if r == nil || r.Status != c.status || pairs(r.Header) != pairs(c.header) || strings.Contains(r.Text, "proxy_http_version 1.1") != c.hint {
				t.Fatalf("got %+v, want %d %v, hint %v", r, c.status, c.header, c.hint)
			}
			if _, err := AppendUpgrade(nil, &h, Accept{}); !errors.Is(err, ErrNotUpgrade) {
				t.Errorf("AppendUpgrade: got %v, want %v", err, ErrNotUpgrade)
			}
		})
	}
}

// acceptedByClient checks that AppendUpgrade answers every head that CheckUpgrade accepts with a 101.
func acceptedByClient(t *testing.T, h *Head) {
	t.Helper()
	out, err := AppendUpgrade(nil, h, Accept{})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		t.Errorf("got %q", out)
	}
}

// TestAppendUpgrade: the key and answer of RFC 6455, section 1.3, and what the application adds.
func TestAppendUpgrade(t *testing.T) {
	h, _ := parse(t, request("GET /chat HTTP/1.1", append(upgradeFields(), "Sec-WebSocket-Protocol: chat, superchat",
		"Sec-WebSocket-Extensions: permessage-deflate")...), HeadLimits{})
	cookie := [2]string{"Set-Cookie", "a=b"}
	cases := []struct {
		name   string
		accept Accept
		err    error
		fields map[string]string
	}{
		{name: "bare"},
		{name: "protocol", accept: Accept{Protocol: "superchat"}, fields: map[string]string{"Sec-Websocket-Protocol": "superchat"}},
		{name: "extension", accept: Accept{Extensions: "permessage-deflate"}, fields: map[string]string{"Sec-Websocket-Extensions": "permessage-deflate"}},
		{name: "field", accept: Accept{Header: [][2]string{cookie}}, fields: map[string]string{"Set-Cookie": "a=b"}},
		{name: "larger than the upgrader's buffer", accept: Accept{Header: [][2]string{{"X-Long", strings.Repeat("x", 3000)}, cookie}}, fields: map[string]string{"Set-Cookie": "a=b"}},
		{name: "protocol not offered", accept: Accept{Protocol: "super"}, err: ErrNotOffered},
		{name: "protocol of another case", accept: Accept{Protocol: "Chat"}, err: ErrNotOffered},
		{name: "line smuggled into a value", accept: Accept{Header: [][2]string{{"X", "a\r\nSet-Cookie: evil=1"}}}, err: ErrHeaderInvalid},
		{name: "line smuggled into a name", accept: Accept{Header: [][2]string{{"X: a\r\nY", "b"}}}, err: ErrHeaderInvalid},
		{name: "line smuggled into extensions", accept: Accept{Extensions: "a\nb"}, err: ErrHeaderInvalid},
		{name: "field of the handshake", accept: Accept{Header: [][2]string{{"sec-websocket-accept", "x"}}}, err: ErrHeaderInvalid},
		{name: "protocol as a field", accept: Accept{Header: [][2]string{{"Sec-WebSocket-Protocol", "chat"}}}, err: ErrHeaderInvalid},
		{name: "body length", accept: Accept{Header: [][2]string{{"Content-Length", "3"}}}, err: ErrHeaderInvalid},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out, err := AppendUpgrade([]byte("before"), &h, c.accept)
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			rest, ok := bytes.CutPrefix(out, []byte("before"))
			if c.err != nil {
				if len(rest) != 0 || !ok {
					t.Errorf("something was appended: %q", out)
				}
				return
			}
			resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(rest)), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			want := map[string]string{"Sec-Websocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Upgrade": "websocket", "Connection": "Upgrade"}
			maps.Copy(want, c.fields)
			for name, value := range want {
				if got := resp.Header.Values(name); len(got) != 1 || got[0] != value {
					t.Errorf("%s: got %q, want %q", name, got, value)
				}
			}
			for _, name := range []string{"Sec-Websocket-Protocol", "Sec-Websocket-Extensions"} {
				if _, ok := want[name]; !ok && resp.Header.Get(name) != "" {
					t.Errorf("%s was sent unasked", name)
				}
			}
		})
	}
	plain, _ := parse(t, request("GET /chat HTTP/1.1", upgradeFields()...), HeadLimits{})
	if _, err := AppendUpgrade(nil, &plain, Accept{Extensions: "permessage-deflate"}); !errors.Is(err, ErrNotOffered) {
		t.Errorf("extension without an offer: got %v", err)
	}
}

// TestResponses reads refusals and plain responses with another HTTP implementation.
func TestResponses(t *testing.T) {
	cases := []struct {
		name   string
		out    []byte
		status int
		body   string
		fields map[string]string
	}{
		{name: "refusal", out: AppendRefusal(nil, errUpgradeVersion), status: 426, body: "this server speaks WebSocket version 13\n", fields: map[string]string{"Sec-Websocket-Version": "13", "Upgrade": "websocket"}},
		{name: "refusal without text", out: AppendRefusal(nil, &Refusal{Status: 403, Reason: "origin"}), status: 403, body: "origin\n"},
		{name: "response", out: AppendResponse(nil, 200, "application/json", "{}", [][2]string{{"X-A", "b"}}), status: 200, body: "{}", fields: map[string]string{"Content-Type": "application/json", "X-A": "b"}},
		{name: "unfit fields are left out", out: AppendResponse(nil, 503, "text/plain\r\nX: y", "", [][2]string{{"X-A", "b\r\nX-B: c"}, {"Retry-After", "3"}}), status: 503, fields: map[string]string{"Retry-After": "3", "X-A": "", "X-B": "", "X": "", "Content-Type": ""}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := bufio.NewReader(bytes.NewReader(c.out))
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != c.body || resp.StatusCode != c.status || !resp.Close || resp.ContentLength != int64(len(c.body)) {
				t.Errorf("got %d %q %v, close %v", resp.StatusCode, body, err, resp.Close)
			}
			for name, value := range c.fields {
				if got := resp.Header.Get(name); got != value {
					t.Errorf("%s: got %q, want %q", name, got, value)
				}
			}
			if r.Buffered() != 0 {
				t.Errorf("%d bytes after the response", r.Buffered())
			}
		})
	}
}
