package wsframe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Each MUST of RFC 6455, section 4 that binds a server has a test named after section and rule: here as far as the bytes of
// the request decide it, in server/rfc6455_test.go where it takes sockets, paths and policies. The list of all rules with
// their tests is server/testdata/rfc6455.txt, and a test there checks it.

// refused checks that a request with these fields is answered with the status, and never with a 101.
func refused(t *testing.T, status int, line string, fields ...string) {
	t.Helper()
	checkRefusal(t, refusal(t, status, line, fields...))
}

// refusal is the answer itself.
func refusal(t *testing.T, status int, line string, fields ...string) *Refusal {
	t.Helper()
	h, r := parse(t, request(line, fields...), HeadLimits{})
	if r == nil {
		r = CheckUpgrade(&h)
		if _, err := AppendUpgrade(nil, &h, Accept{}); !errors.Is(err, ErrNotUpgrade) {
			t.Errorf("AppendUpgrade: %v", err)
		}
	}
	if r == nil || r.Status != status {
		t.Fatalf("got %v, want status %d", r, status)
	}
	return r
}

// accepted returns the response to a valid upgrade.
func accepted(t *testing.T, a Accept, fields ...string) *http.Response {
	t.Helper()
	h, r := parse(t, request(get, fields...), HeadLimits{})
	if r == nil {
		r = CheckUpgrade(&h)
	}
	if r != nil {
		t.Fatal(r)
	}
	out, err := AppendUpgrade(nil, &h, a)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out)), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

const get = "GET /ws HTTP/1.1"

// An HTTP/1.1 or higher GET request.
func TestRFC6455Section4_2_1Item1OtherMethodsRefused(t *testing.T) {
	for _, method := range []string{"POST", "HEAD", "OPTIONS", "get"} {
		refused(t, http.StatusMethodNotAllowed, method+" /ws HTTP/1.1", upgradeFields()...)
	}
}

func TestRFC6455Section4_2_1Item1HTTP10Refused(t *testing.T) {
	refused(t, http.StatusBadRequest, "GET /ws HTTP/1.0", upgradeFields()...)
}

// A Host header field containing the server's authority.
func TestRFC6455Section4_2_1Item2HostRequired(t *testing.T) {
	refused(t, http.StatusBadRequest, get, with("Host", "")...)
	refused(t, http.StatusBadRequest, get, append(upgradeFields(), "Host: other")...)
	refused(t, http.StatusBadRequest, get, with("Host", "Host: a b")...)
}

// An Upgrade header field containing the value "websocket", treated as an ASCII case-insensitive value.
func TestRFC6455Section4_2_1Item3UpgradeRequired(t *testing.T) {
	refused(t, http.StatusBadRequest, get, with("Upgrade", "")...)
	refused(t, http.StatusBadRequest, get, with("Upgrade", "Upgrade: websocket2")...)
	accepted(t, Accept{}, with("Upgrade", "Upgrade: WEBsocket")...)
}

// A Connection header field that includes the token "Upgrade", treated as an ASCII case-insensitive value.
func TestRFC6455Section4_2_1Item4ConnectionRequired(t *testing.T) {
	refused(t, http.StatusBadRequest, get, with("Connection", "")...)
	refused(t, http.StatusBadRequest, get, with("Connection", "Connection: keep-alive")...)
	accepted(t, Accept{}, with("Connection", "Connection: keep-alive, uPGRADE")...)
}

// A Sec-WebSocket-Key header field with a base64-encoded value that, when decoded, is 16 bytes in length.
func TestRFC6455Section4_2_1Item5KeyRequired(t *testing.T) {
	refused(t, http.StatusBadRequest, get, with("Sec-WebSocket-Key", "")...)
	for _, key := range []string{"", "dGhlIHNhbXBsZSBub25j", "dGhlIHNhbXBsZSBub25jZSE=", "dGhlIHNhbXBsZSBub25jZQ=!", "dGhlIHNhbXBsZSBub25jZQ"} {
		refused(t, http.StatusBadRequest, get, with("Sec-WebSocket-Key", "Sec-WebSocket-Key: "+key)...)
	}
	// Section 11.3.1: the field MUST NOT appear more than once in an HTTP request.
	refused(t, http.StatusBadRequest, get, append(upgradeFields(), "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==")...)
}

// A Sec-WebSocket-Version header field, with a value of 13.
func TestRFC6455Section4_2_1Item6VersionRequired(t *testing.T) {
	refused(t, http.StatusBadRequest, get, with("Sec-WebSocket-Version", "")...)
	refused(t, http.StatusBadRequest, get, append(upgradeFields(), "Sec-WebSocket-Version: 13")...)
}

// Section 4.1, item 10: the elements that comprise the value of Sec-WebSocket-Protocol MUST all be unique strings.
func TestRFC6455Section4_1Item10UniqueSubprotocols(t *testing.T) {
	var many strings.Builder
	for i := range 900 {
		fmt.Fprintf(&many, "p%d,", i)
	}
	for _, c := range []struct {
		name  string
		lines []string
		twice bool
	}{
		{name: "different", lines: []string{"chat, superchat"}},
		{name: "names are case-sensitive", lines: []string{"chat, Chat"}},
		{name: "twice", lines: []string{"chat, chat"}, twice: true},
		{name: "twice, apart", lines: []string{"chat,v1 ,chat"}, twice: true},
		{name: "twice, in two lines", lines: []string{"chat", "v1, chat"}, twice: true},
		{name: "more than anybody has", lines: []string{many.String()}},
		{name: "twice among many", lines: []string{many.String() + "p899"}, twice: true},
		{name: "the first again behind many", lines: []string{many.String() + "p0"}, twice: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fields := upgradeFields()
			for _, line := range c.lines {
				fields = append(fields, "Sec-WebSocket-Protocol: "+line)
			}
			h, r := parse(t, request(get, fields...), HeadLimits{})
			if r != nil {
				t.Fatal(r)
			}
			if r = CheckUpgrade(&h); (r != nil) != c.twice || c.twice && (r.Reason != "duplicate-protocol" || r.Status != http.StatusBadRequest) {
				t.Errorf("got %v", r)
			}
		})
	}
}

// Optionally, other header fields: unknown ones are ignored.
func TestRFC6455Section4_2_1Item10UnknownFieldsIgnored(t *testing.T) {
	accepted(t, Accept{}, append(upgradeFields(), "X-Unknown: 1", "Cookie: a=b", "Sec-WebSocket-Unknown: \"")...)
}

// Including but not limited to any violations of the ABNF grammar specified for the components of the handshake, the
// server MUST stop processing the client's handshake and return an HTTP response with an appropriate error code.
func TestRFC6455Section4_2_1GrammarViolationsRefused(t *testing.T) {
	refused(t, http.StatusBadRequest, get, append(upgradeFields(), "Sec-WebSocket-Protocol: super chat")...)
	refused(t, http.StatusBadRequest, get, append(upgradeFields(), "Sec-WebSocket-Extensions: a; =b")...)
	refused(t, http.StatusBadRequest, get, append(upgradeFields(), "no colon")...)
	refused(t, http.StatusBadRequest, "GET /ws HTTP/2.0", upgradeFields()...)
	refused(t, http.StatusBadRequest, "GET ws HTTP/1.1", upgradeFields()...)
}

// If this version does not match a version understood by the server, the server MUST abort the WebSocket handshake and
// send an appropriate HTTP error code (such as 426 Upgrade Required) and a Sec-WebSocket-Version header field.
func TestRFC6455Section4_2_2OtherVersionsAbort(t *testing.T) {
	for _, version := range []string{"0", "7", "8", "12", "14", "013", "13.0", "13, 8", "-1", "255", "256", ""} {
		r := refusal(t, http.StatusUpgradeRequired, get, with("Sec-WebSocket-Version", "Sec-WebSocket-Version: "+version)...)
		if pairs(r.Header) != pairs([][2]string{{"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}}) {
			t.Errorf("%q: got %v", version, r.Header)
		}
	}
}

// Section 4.4: the server MUST respond with all versions it is willing to use.
func TestRFC6455Section4_4VersionsAreNamed(t *testing.T) {
	r := refusal(t, http.StatusUpgradeRequired, get, with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 25")...)
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(AppendRefusal(nil, r))), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Sec-WebSocket-Version"); got != "13" {
		t.Errorf("got %q", got)
	}
}

// If the server chooses to accept the incoming connection, it MUST reply with a valid HTTP response: 101, Upgrade,
// Connection and Sec-WebSocket-Accept, the base64 of SHA-1 of the key and the GUID.
func TestRFC6455Section4_2_2Item5ValidResponse(t *testing.T) {
	resp := accepted(t, Accept{}, upgradeFields()...)
	for name, want := range map[string]string{
		"Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
	} {
		if got := resp.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Proto != "HTTP/1.1" {
		t.Errorf("got %s %s", resp.Proto, resp.Status)
	}
}

// The value chosen MUST be derived from the client's handshake; if the server does not wish to agree to one, it MUST NOT
// send back a Sec-WebSocket-Protocol header field.
func TestRFC6455Section4_2_2SubprotocolFromTheOffer(t *testing.T) {
	fields := append(upgradeFields(), "Sec-WebSocket-Protocol: chat, superchat")
	if got := accepted(t, Accept{Protocol: "superchat"}, fields...).Header.Values("Sec-Websocket-Protocol"); len(got) != 1 || got[0] != "superchat" {
		t.Errorf("got %q", got)
	}
	if got, ok := accepted(t, Accept{}, fields...).Header["Sec-Websocket-Protocol"]; ok {
		t.Errorf("got %q without a choice", got)
	}
	h, _ := parse(t, request(get, fields...), HeadLimits{})
	if _, err := AppendUpgrade(nil, &h, Accept{Protocol: "other"}); !errors.Is(err, ErrNotOffered) {
		t.Errorf("not offered: %v", err)
	}
}

// Extensions not listed by the client MUST NOT be listed.
func TestRFC6455Section4_2_2ExtensionsFromTheOffer(t *testing.T) {
	h, _ := parse(t, request(get, upgradeFields()...), HeadLimits{})
	if _, err := AppendUpgrade(nil, &h, Accept{Extensions: "permessage-deflate"}); !errors.Is(err, ErrNotOffered) {
		t.Errorf("nothing offered: %v", err)
	}
	h = offered(t, "foo, bar; baz=1")
	if d, answer := NegotiateDeflate(&h); d != 0 || answer != "" {
		t.Errorf("other extensions offered: %d %q", d, answer)
	}
}
