package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// jsonBeatTest is a message and what it means; an empty ts stands for none.
type jsonBeatTest struct {
	name string
	msg  string
	kind jsonBeatKind
	ts   string
}

func jsonBeatTests() []jsonBeatTest {
	pad := func(total int) string { // a heartbeat of exactly so many bytes
		const frame = `{"type":"heartbeat","pad":""}`
		return frame[:len(frame)-2] + strings.Repeat("x", total-len(frame)) + frame[len(frame)-2:]
	}
	return []jsonBeatTest{
		{"plain", `{"type":"heartbeat"}`, beat, ""},
		{"ack", `{"type":"heartbeat_ack"}`, beatAck, ""},
		{"ack with ts", `{"type":"heartbeat_ack","ts":7}`, beatAck, "7"},
		{"spaces everywhere", " \t\r\n{ \"type\" :\n\"heartbeat\"\t, \"ts\" : 1 } \n", beat, "1"},
		{"order", `{"ts":12.5e+3,"a":null,"type":"heartbeat"}`, beat, "12.5e+3"},
		{"other members", `{"type":"heartbeat","a":[{"type":"x"},{}],"b":{"c":[]},"d":false,"e":true}`, beat, ""},
		{"ts negative", `{"type":"heartbeat","ts":-0.0}`, beat, "-0.0"},
		{"ts string", `{"type":"heartbeat","ts":"2026-01-02T03:04:05Z"}`, beat, `"2026-01-02T03:04:05Z"`},
		{"ts empty string", `{"type":"heartbeat","ts":""}`, beat, `""`},
		{"ts string with escapes", `{"type":"heartbeat","ts":"\u00e9\"\\"}`, beat, `"\u00e9\"\\"`},
		{"ts string of 64", `{"type":"heartbeat","ts":"` + strings.Repeat("a", 64) + `"}`, beat, `"` + strings.Repeat("a", 64) + `"`},
		{"ts string of 65", `{"type":"heartbeat","ts":"` + strings.Repeat("a", 65) + `"}`, beat, ""},
		{"ts null", `{"type":"heartbeat","ts":null}`, beat, ""},
		{"ts true", `{"type":"heartbeat","ts":true}`, beat, ""},
		{"ts object", `{"type":"heartbeat","ts":{"ts":1}}`, beat, ""},
		{"ts array", `{"type":"heartbeat","ts":[1]}`, beat, ""},
		{"ts deeper", `{"type":"heartbeat","a":{"ts":1}}`, beat, ""},
		{"512 bytes", pad(512), beat, ""},
		{"513 bytes", pad(513), notBeat, ""},
		{"deep nesting", `{"type":"heartbeat","a":` + strings.Repeat(`[`, 240) + strings.Repeat(`]`, 240) + `}`, beat, ""},
		{"mixed nesting", `{"type":"heartbeat","a":` + strings.Repeat(`[{"":`, 68) + `0` + strings.Repeat(`}]`, 68) + `}`, beat, ""},
		{"wrong bracket", `{"type":"heartbeat","a":[{"":0]}}`, notBeat, ""},
		{"nested duplicates are nobody's concern", `{"type":"heartbeat","a":{"b":1,"b":2}}`, beat, ""},

		{"duplicate type", `{"type":"heartbeat","type":"heartbeat"}`, notBeat, ""},
		{"duplicate ts", `{"type":"heartbeat","ts":1,"ts":1}`, notBeat, ""},
		{"duplicate other", `{"a":1,"type":"heartbeat","a":1}`, notBeat, ""},
		{"escape in key", `{"t\u0079pe":"heartbeat"}`, notBeat, ""},
		{"escape in another key", `{"type":"heartbeat","\u0074ype":"x"}`, notBeat, ""},
		{"escape in value", `{"type":"heart\u0062eat","x":"heartbeat"}`, notBeat, ""},
		{"type deeper only", `{"a":{"type":"heartbeat"}}`, notBeat, ""},
		{"type in array", `[{"type":"heartbeat"}]`, notBeat, ""},
		{"type is an array", `{"type":["heartbeat"]}`, notBeat, ""},
		{"type of another case", `{"Type":"heartbeat"}`, notBeat, ""},
		{"value of another case", `{"type":"Heartbeat"}`, notBeat, ""},
		{"value with a tail", `{"type":"heartbeats"}`, notBeat, ""},
		{"value as a key", `{"heartbeat":"type"}`, notBeat, ""},
		{"another type", `{"type":"chat","text":"heartbeat"}`, notBeat, ""},
		{"two objects", `{"type":"heartbeat"}{"type":"heartbeat"}`, notBeat, ""},
		{"text behind", `{"type":"heartbeat"}x`, notBeat, ""},
		{"zero behind", "{\"type\":\"heartbeat\"}\x00", notBeat, ""},
		{"byte order mark", "\xef\xbb\xbf{\"type\":\"heartbeat\"}", notBeat, ""},
		{"not closed", `{"type":"heartbeat"`, notBeat, ""},
		{"trailing comma", `{"type":"heartbeat",}`, notBeat, ""},
		{"leading comma", `{,"type":"heartbeat"}`, notBeat, ""},
		{"no comma", `{"a":1 "type":"heartbeat"}`, notBeat, ""},
		{"no colon", `{"a" 1,"type":"heartbeat"}`, notBeat, ""},
		{"single quotes", `{'type':'heartbeat'}`, notBeat, ""},
		{"comment", `{"type":"heartbeat"/**/}`, notBeat, ""},
		{"bad number", `{"type":"heartbeat","a":01}`, notBeat, ""},
		{"number without digits", `{"type":"heartbeat","a":1.}`, notBeat, ""},
		{"number with plus", `{"type":"heartbeat","ts":+1}`, notBeat, ""},
		{"exponent without digits", `{"type":"heartbeat","a":1e}`, notBeat, ""},
		{"bad word", `{"type":"heartbeat","a":nul}`, notBeat, ""},
		{"bad escape", `{"type":"heartbeat","a":"\x"}`, notBeat, ""},
		{"short escape", `{"type":"heartbeat","a":"\u00g0"}`, notBeat, ""},
		{"cut in an escape", `{"type":"heartbeat","a":"\`, notBeat, ""},
		{"raw control character", "{\"type\":\"heartbeat\",\"a\":\"\n\"}", notBeat, ""},
		{"empty", ``, notBeat, ""},
		{"blank", strings.Repeat(" ", 512), notBeat, ""},
		{"empty object", `{}`, notBeat, ""},
		{"bare word", `heartbeat`, notBeat, ""},
	}
}

func TestParseJSONBeat(t *testing.T) {
	for _, test := range jsonBeatTests() {
		t.Run(test.name, func(t *testing.T) {
			kind, ts := parseJSONBeat([]byte(test.msg))
			if kind != test.kind || string(ts) != test.ts || (ts == nil) != (test.ts == "") {
				t.Errorf("parseJSONBeat(%q) = %d, %q; want %d, %q", test.msg, kind, ts, test.kind, test.ts)
			}
		})
	}
}

// Each message that stops early must be refused: no rule may depend on what lies behind the end.
func TestParseJSONBeatCutAnywhere(t *testing.T) {
	whole := []byte(`{"a":[1,{"b":"\u00e9"},true,null],"type":"heartbeat","ts":-1.5e7}`)
	if kind, _ := parseJSONBeat(whole); kind != beat {
		t.Fatal("the whole message is a heartbeat")
	}
	for n := range whole {
		if kind, _ := parseJSONBeat(whole[:n:n]); kind != notBeat {
			t.Errorf("the first %d bytes are %d", n, kind)
		}
	}
}

func TestAppendBeatAck(t *testing.T) {
	tests := []struct{ name, ts, want string }{
		{"no ts", "", `{"type":"heartbeat_ack"}`},
		{"number", "17", `{"type":"heartbeat_ack","ts":17}`},
		{"string", `"a\"b"`, `{"type":"heartbeat_ack","ts":"a\"b"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var ts []byte
			if test.ts != "" {
				ts = []byte(test.ts)
			}
			got := appendBeatAck([]byte("before "), ts)
			if string(got) != "before "+test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if kind, back := parseJSONBeat(got[len("before "):]); kind != beatAck || string(back) != test.ts {
				t.Errorf("the acknowledgement reads as %d, %q", kind, back)
			}
		})
	}
}

// The array of keys has no check of its own: the densest message must fit, and it must not cost what a pair-by-pair comparison would.
func TestJSONBeatKeysFit(t *testing.T) {
	msg := manyKeys()
	if kind, _ := parseJSONBeat(msg); kind != beat {
		t.Errorf("%d bytes with many members: %d", len(msg), kind)
	}
	if densest := len("{}") + jsonKeysMax*len(`"":0,`) - len(","); densest > jsonHeartbeatBytesMax || densest+len(`"":0,`) <= jsonHeartbeatBytesMax {
		t.Errorf("%d members take %d bytes: the bound isn't the largest that fits", jsonKeysMax, densest)
	}
}

// manyKeys is a heartbeat with as many members as fit, all of them different.
func manyKeys() []byte {
	msg := []byte(`{"type":"heartbeat"`)
	for c := '!'; ; c++ {
		if c == '"' || c == '\\' {
			continue
		}
		member := fmt.Sprintf(`,"%c":0`, c)
		if len(msg)+len(member)+1 > jsonHeartbeatBytesMax {
			return append(msg, '}')
		}
		msg = append(msg, member...)
	}
}

func TestJSONBeatDoesNotAllocate(t *testing.T) {
	messages := jsonBeatBenchmarks()
	dst := make([]byte, 0, 2*jsonHeartbeatBytesMax)
	for name, msg := range messages {
		allocs := testing.AllocsPerRun(100, func() {
			_, ts := parseJSONBeat(msg)
			dst = appendBeatAck(dst[:0], ts)
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

// FuzzJSONBeat compares with encoding/json: the same messages are valid, and the same members are found in them.
func FuzzJSONBeat(f *testing.F) {
	for _, test := range jsonBeatTests() {
		f.Add([]byte(test.msg))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		kind, ts := parseJSONBeat(msg)
		wantKind, wantTS := referenceJSONBeat(msg)
		if kind != wantKind || !bytes.Equal(ts, wantTS) || (ts == nil) != (wantTS == nil) {
			t.Fatalf("%q: got %d, %q; want %d, %q", msg, kind, ts, wantKind, wantTS)
		}
		if kind != notBeat && !json.Valid(appendBeatAck(nil, ts)) {
			t.Fatalf("%q: the acknowledgement is not valid: %s", msg, appendBeatAck(nil, ts))
		}
	})
}

// referenceJSONBeat follows the rules with the standard library.
func referenceJSONBeat(msg []byte) (kind jsonBeatKind, ts []byte) {
	if len(msg) > jsonHeartbeatBytesMax || !json.Valid(msg) {
		return notBeat, nil
	}
	d := json.NewDecoder(bytes.NewReader(msg))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return notBeat, nil
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		before := d.InputOffset()
		if _, err := d.Token(); err != nil {
			return notBeat, nil
		}
		key := bytes.Trim(msg[before:d.InputOffset()], " \t\r\n,") // with its quotes
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return notBeat, nil
		}
		if _, twice := members[string(key)]; twice || bytes.ContainsRune(key, '\\') {
			return notBeat, nil
		}
		members[string(key)] = value
	}
	switch string(members[`"type"`]) {
	case `"heartbeat"`:
		kind = beat
	case `"heartbeat_ack"`:
		kind = beatAck
	default:
		return notBeat, nil
	}
	ts = members[`"ts"`]
	var number json.Number
	isString := len(ts) > 0 && ts[0] == '"'
	isNumber := len(ts) > 0 && !isString && !bytes.Equal(ts, []byte("null")) && json.Unmarshal(ts, &number) == nil
	if isNumber || isString && len(ts)-2 <= jsonTimestampBytesMax {
		return kind, ts
	}
	return kind, nil
}

func jsonBeatBenchmarks() map[string][]byte {
	return map[string][]byte{
		"heartbeat":           []byte(`{"type":"heartbeat"}`),
		"heartbeat with ts":   []byte(`{"type":"heartbeat","ts":1735689600123}`),
		"ordinary text":       []byte(`hello, this is a message of nobody's protocol`),
		"ordinary object":     []byte(`{"type":"chat","room":"general","text":"` + strings.Repeat("lorem ipsum ", 10) + `"}`),
		"large object":        bytes.Repeat([]byte(`{"type":"heartbeat"}`), 100),
		"hostile: many keys":  manyKeys(),
		"hostile: deep array": []byte(`{"type":"heartbeat","a":` + strings.Repeat(`[`, 240) + strings.Repeat(`]`, 240) + `}`),
	}
}

func BenchmarkJSONBeat(b *testing.B) {
	for name, msg := range jsonBeatBenchmarks() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(msg)))
			b.ReportAllocs()
			for b.Loop() {
				parseJSONBeat(msg)
			}
		})
	}
}
