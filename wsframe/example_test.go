package wsframe_test

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// A connection's reads are decoded as they come. Here a message of two frames arrives in three reads, with a ping
// between its frames.
func ExampleDecoder() {
	mask := [4]byte{1, 2, 3, 4}
	stream := wsframe.AppendMasked(nil, wsframe.Text, false, []byte("Hel"), mask)
	stream = wsframe.AppendMasked(stream, wsframe.Ping, true, []byte("?"), mask)
	stream = wsframe.AppendMasked(stream, wsframe.Continuation, true, []byte("lo"), mask)
	reads := [][]byte{stream[:7], stream[7:20], stream[20:]}

	lim := &wsframe.Limits{MessageBytesMax: 64 << 10, FragmentsMax: 1024, EmptyFragmentsMax: 16}
	var d wsframe.Decoder
	var out []byte
	for _, buf := range reads {
		for {
			m, n, ok, err := d.Next(lim, buf)
			if err != nil {
				fmt.Println("close the connection:", err)
				return
			}
			if !ok {
				break
			}
			fmt.Printf("%v %q in %d frames\n", m.Opcode, m.Payload, m.Frames)
			if m.Opcode == wsframe.Ping {
				out = wsframe.AppendFrame(out, wsframe.Pong, m.Payload)
			}
			buf = buf[n:]
		}
	}
	fmt.Printf("to send: % x, idle: %v\n", out, d.Idle())
	// Output:
	// ping "?" in 1 frames
	// text "Hello" in 2 frames
	// to send: 8a 01 3f, idle: true
}

// An error of the peer carries the code that the connection is closed with.
func ExampleProtocolError() {
	var d wsframe.Decoder
	unmasked := wsframe.AppendFrame(nil, wsframe.Text, []byte("from a client"))
	_, _, _, err := d.Next(&wsframe.Limits{}, unmasked)
	perr, _ := errors.AsType[*wsframe.ProtocolError](err)
	fmt.Printf("%d %s\n% x\n", perr.Code, perr.Reason, wsframe.AppendClose(nil, perr.Code, ""))
	// Output:
	// 1002 unmasked-frame
	// 88 02 03 ea
}

// The handshake of a server: collect bytes until the head is complete, judge it, answer.
func ExampleAppendUpgrade() {
	received := []byte("GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	scanned := 0
	head, n, err := wsframe.ParseHead(received, &scanned, wsframe.HeadLimits{Bytes: 8 << 10, Headers: 64})
	if err != nil {
		refusal, _ := errors.AsType[*wsframe.Refusal](err)
		fmt.Printf("%s", wsframe.AppendRefusal(nil, refusal))
		return
	}
	if n == 0 {
		return // Not complete yet: read more.
	}
	if refusal := wsframe.CheckUpgrade(&head); refusal != nil {
		fmt.Printf("%s", wsframe.AppendRefusal(nil, refusal))
		return
	}
	response, err := wsframe.AppendUpgrade(nil, &head, wsframe.Accept{})
	fmt.Printf("%s %v\n%.34s\n", head.Path, err, response)
	// Output:
	// /chat <nil>
	// HTTP/1.1 101 Switching Protocols
}

// Compression is agreed on in the handshake and remembered in one small value. What comes in is inflated by whoever
// decodes, what goes out is compressed by whoever sends.
func ExampleNegotiateDeflate() {
	request := wsframe.AppendRequest(nil, "example.com", "/chat", [16]byte{}, [][2]string{
		{"Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=10; client_max_window_bits"},
	})
	scanned := 0
	head, _, err := wsframe.ParseHead(request, &scanned, wsframe.HeadLimits{Bytes: 8 << 10})
	if err != nil || wsframe.CheckUpgrade(&head) != nil {
		return
	}
	agreed, answer := wsframe.NegotiateDeflate(&head)
	fmt.Println(agreed, answer)
	if _, err = wsframe.AppendUpgrade(nil, &head, wsframe.Accept{Extensions: answer}); err != nil {
		return
	}

	lim := &wsframe.Limits{MessageBytesMax: 64 << 10, Deflate: agreed != 0}
	var decoder wsframe.Decoder
	var inflater wsframe.Inflater
	hello := wsframe.AppendMasked(nil, wsframe.Text, true, []byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), [4]byte{1, 2, 3, 4})
	hello[0] |= 0x40 // RSV1: compressed
	m, _, ok, err := decoder.Next(lim, hello)
	if ok {
		m, err = inflater.Inflate(lim, m)
	}
	fmt.Printf("%s %v\n", m.Payload, err)

	var deflater wsframe.Deflater
	frame := deflater.Append(nil, agreed, wsframe.Text, bytes.Repeat(m.Payload, 100))
	fmt.Println("500 bytes in a frame of fewer than 30:", len(frame) < 30)
	// Output:
	// 10 permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10
	// Hello <nil>
	// 500 bytes in a frame of fewer than 30: true
}
