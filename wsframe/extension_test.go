package wsframe

import (
	"strings"
	"testing"
)

// offered parses a request with these lines of Sec-WebSocket-Extensions.
func offered(t testing.TB, lines ...string) Head {
	t.Helper()
	fields := upgradeFields()
	for _, line := range lines {
		fields = append(fields, "Sec-WebSocket-Extensions: "+line)
	}
	h, r := parse(t, request("GET /ws HTTP/1.1", fields...), HeadLimits{})
	if r != nil {
		t.Fatal(r)
	}
	return h
}

// TestNegotiateDeflate has a row for each rule of RFC 7692, section 7.1, and of section 5 on lists of offers.
func TestNegotiateDeflate(t *testing.T) {
	const pmd = "permessage-deflate"
	cases := []struct {
		name   string
		offer  string // lines end in a newline
		d      Deflate
		params string // of the answer, after those that it always has
	}{
		{name: "nothing", offer: ""},
		{name: "bare", offer: pmd, d: 15},
		{name: "what browsers send", offer: pmd + "; client_max_window_bits", d: 15},
		{name: "7.1.1.1 server_no_context_takeover", offer: pmd + "; server_no_context_takeover", d: 15},
		{name: "7.1.1.1 with a value", offer: pmd + "; server_no_context_takeover=true"},
		{name: "7.1.1.2 client_no_context_takeover", offer: pmd + "; client_no_context_takeover", d: 15},
		{name: "7.1.1.2 with a value", offer: pmd + `; client_no_context_takeover="1"`},
		{name: "7.1.2.1 server window 8", offer: pmd + "; server_max_window_bits=8", d: 8, params: "; server_max_window_bits=8"},
		{name: "7.1.2.1 server window 10", offer: pmd + "; server_max_window_bits=10", d: 10, params: "; server_max_window_bits=10"},
		{name: "7.1.2.1 server window 15", offer: pmd + "; server_max_window_bits=15", d: 15, params: "; server_max_window_bits=15"},
		{name: "7.1.2.1 server window quoted", offer: pmd + `; server_max_window_bits="12"`, d: 12, params: "; server_max_window_bits=12"},
		{name: "7.1.2.1 server window with escapes", offer: pmd + `; server_max_window_bits="\1\2"`, d: 12, params: "; server_max_window_bits=12"},
		{name: "7.1.2.1 without a value", offer: pmd + "; server_max_window_bits"},
		{name: "7.1.2.1 server window 7", offer: pmd + "; server_max_window_bits=7"},
		{name: "7.1.2.1 server window 16", offer: pmd + "; server_max_window_bits=16"},
		{name: "7.1.2.1 server window 0", offer: pmd + "; server_max_window_bits=0"},
		{name: "7.1.2.1 leading zero", offer: pmd + "; server_max_window_bits=09"},
		{name: "7.1.2.1 leading zero quoted", offer: pmd + `; server_max_window_bits="\09"`},
		{name: "7.1.2.1 sign", offer: pmd + "; server_max_window_bits=+9"},
		{name: "7.1.2.1 hexadecimal", offer: pmd + "; server_max_window_bits=0xf"},
		{name: "7.1.2.1 long", offer: pmd + "; server_max_window_bits=1" + strings.Repeat("0", 40)},
		{name: "7.1.2.1 wraps to 10", offer: pmd + "; server_max_window_bits=266"},
		{name: "7.1.2.2 client window without a value", offer: pmd + "; client_max_window_bits", d: 15},
		{name: "7.1.2.2 client window 8", offer: pmd + "; client_max_window_bits=8", d: 15, params: "; client_max_window_bits=8"},
		{name: "7.1.2.2 client window 15", offer: pmd + "; client_max_window_bits=15", d: 15, params: "; client_max_window_bits=15"},
		{name: "7.1.2.2 client window 16", offer: pmd + "; client_max_window_bits=16"},
		{name: "7.1.2.2 client window no number", offer: pmd + "; client_max_window_bits=a"},
		{
			name: "all of them", d: 9, params: "; server_max_window_bits=9; client_max_window_bits=11",
			offer: pmd + ";client_max_window_bits=11 ;\tserver_max_window_bits = 9; client_no_context_takeover;server_no_context_takeover",
		},
		{name: "7.1 unknown parameter", offer: pmd + "; x"},
		{name: "7.1 unknown parameter with a value", offer: pmd + "; client_max_window_bits; y=1"},
		{name: "7.1 parameter twice", offer: pmd + "; client_max_window_bits; client_max_window_bits=10"},
		{name: "7.1 flag twice", offer: pmd + "; server_no_context_takeover; server_no_context_takeover"},
		{name: "another extension", offer: "x-webkit-deflate-frame"},
		{name: "another case is another extension", offer: "Permessage-Deflate"},
		{name: "parameter of another extension", offer: "foo; server_max_window_bits=8, " + pmd, d: 15},
		{name: "5.1 first valid of several", offer: pmd + "; server_max_window_bits=10, " + pmd, d: 10, params: "; server_max_window_bits=10"},
		{name: "5.1 first one declined", offer: pmd + "; server_max_window_bits=99, " + pmd + "; client_max_window_bits", d: 15},
		{name: "5.1 over several lines", offer: "foo, bar; a=b\n" + pmd + "; unknown\n" + pmd + "; server_max_window_bits=11", d: 11, params: "; server_max_window_bits=11"},
		{name: "empty elements", offer: " ,, " + pmd + " ,", d: 15},
		{name: "all declined", offer: pmd + "; a, " + pmd + "; b"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var lines []string
			if c.offer != "" {
				lines = strings.Split(c.offer, "\n")
			}
			h := offered(t, lines...)
			if r := CheckUpgrade(&h); r != nil {
				t.Fatalf("a well-formed offer is refused: %v", r)
			}
			d, answer := NegotiateDeflate(&h)
			want := ""
			if c.d != 0 {
				want = "permessage-deflate; server_no_context_takeover; client_no_context_takeover" + c.params
			}
			if d != c.d || answer != want {
				t.Errorf("got %d %q, want %d %q", d, answer, c.d, want)
			}
			if _, err := AppendUpgrade(nil, &h, Accept{Extensions: answer}); err != nil {
				t.Errorf("the answer can't be sent: %v", err)
			}
		})
	}
}

// TestMalformedExtensions: RFC 6455, section 9.1: a value that does not conform to the ABNF fails the handshake, also
// behind an offer that would do.
func TestMalformedExtensions(t *testing.T) {
	for _, c := range []struct{ name, value string }{
		{"semicolon alone", ";"},
		{"parameter without extension", "; a"},
		{"parameter without name", "permessage-deflate;"},
		{"two semicolons", "a;;b"},
		{"value without name", "a; =1"},
		{"name without value", "a; b="},
		{"no token", "a/b"},
		{"two tokens", "a b"},
		{"value of two tokens", "a; b=1 2"},
		{"extension with a value", "a=1"},
		{"empty quoted value", `a; b=""`},
		{"open quote", `a; b="c`},
		{"quote that ends in an escape", `a; b="c\`},
		{"quoted value that is no token", `a; b="c d"`},
		{"quoted list", `a; b="c,d"`},
		{"escaped quote in a quoted value", `a; b="\""`},
		{"text behind a quote", `a; b="c"d`},
		{"behind a valid offer", "permessage-deflate, a/b"},
		{"byte beyond ASCII", "a\xE9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := offered(t, "good", c.value)
			if r := CheckUpgrade(&h); r == nil || r.Status != 400 || r.Reason != "bad-extensions" {
				t.Errorf("got %v", r)
			}
		})
	}
	h := offered(t, "permessage-deflate; client_max_window_bits;")
	if d, answer := NegotiateDeflate(&h); d != 0 || answer != "" {
		t.Errorf("who did not ask CheckUpgrade gets %d %q", d, answer)
	}
}

// TestMalformedProtocols: the elements of the list are tokens; an empty list offers none.
func TestMalformedProtocols(t *testing.T) {
	for _, c := range []struct {
		name, value string
		ok          bool
	}{
		{name: "tokens", value: "chat, v10.stomp,graphql-ws", ok: true},
		{name: "empty elements", value: ", chat ,", ok: true},
		{name: "empty", value: "", ok: true},
		{name: "blank inside", value: "super chat"},
		{name: "URL", value: "http://example.com/chat"},
		{name: "quoted", value: `"chat"`},
		{name: "parameter", value: "chat;q=1"},
		{name: "not ASCII", value: "ch\xE4t"},
		{name: "second element", value: "chat, a@b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, r := parse(t, request("GET /ws HTTP/1.1", append(upgradeFields(), "Sec-WebSocket-Protocol: "+c.value)...), HeadLimits{})
			if r != nil {
				t.Fatal(r)
			}
			if r = CheckUpgrade(&h); (r == nil) != c.ok || r != nil && r.Reason != "bad-protocols" {
				t.Errorf("got %v", r)
			}
		})
	}
}
