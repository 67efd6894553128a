package wsframe

import (
	"bytes"
	"fmt"
	"testing"
)

var benchMask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// benchLimits are the server's defaults.
func benchLimits() *Limits {
	return &Limits{MessageBytesMax: 64 << 10, FragmentsMax: 1024, EmptyFragmentsMax: 16}
}

func BenchmarkDecode(b *testing.B) {
	cases := []struct {
		name  string
		op    Opcode
		bytes int
	}{
		{name: "text 128", op: Text, bytes: 128},
		{name: "binary 128", op: Binary, bytes: 128},
		{name: "text 16KiB", op: Text, bytes: 16 << 10},
		{name: "binary 16KiB", op: Binary, bytes: 16 << 10},
		{name: "ping", op: Ping, bytes: 8},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			// Unmasking writes to the frame: an all-zero mask keeps it the same and costs as much as any other.
			frame := AppendMasked(nil, c.op, true, bytes.Repeat([]byte("a"), c.bytes), [4]byte{})
			lim := benchLimits()
			var d Decoder
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				if _, n, ok, err := d.Next(lim, frame); !ok || err != nil || n != len(frame) {
					b.Fatal(n, ok, err)
				}
			}
		})
	}
}

// BenchmarkDecodeSplit is a frame that arrives in two reads, with a buffer kept between messages.
func BenchmarkDecodeSplit(b *testing.B) {
	for _, size := range []int{128, 16 << 10} {
		b.Run(fmt.Sprintf("text %d", size), func(b *testing.B) {
			frame := AppendMasked(nil, Text, true, bytes.Repeat([]byte("a"), size), [4]byte{})
			lim := benchLimits()
			var d Decoder
			half := len(frame) / 2
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, ok, err := d.Next(lim, frame[:half]); ok || err != nil {
					b.Fatal(ok, err)
				}
				if _, _, ok, err := d.Next(lim, frame[half:]); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, size := range []int{8, 128, 16 << 10} {
		b.Run(fmt.Sprintf("frame %d", size), func(b *testing.B) {
			payload := make([]byte, size)
			dst := make([]byte, 0, size+HeaderBytesMax)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendFrame(dst[:0], Binary, payload)
			}
		})
		b.Run(fmt.Sprintf("masked %d", size), func(b *testing.B) {
			payload := make([]byte, size)
			dst := make([]byte, 0, size+HeaderBytesMax)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendMasked(dst[:0], Binary, true, payload, benchMask)
			}
		})
	}
}

// browserHead is what a current browser sends.
const browserHead = "GET /ws?heartbeat=text&heartbeat_interval=30s HTTP/1.1\r\n" +
	"Host: chat.example.com:8080\r\n" +
	"Connection: Upgrade\r\n" +
	"Pragma: no-cache\r\n" +
	"Cache-Control: no-cache\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n" +
	"Upgrade: websocket\r\n" +
	"Origin: https://chat.example.com:8080\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-GB,en-US;q=0.9,en;q=0.8\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"

func BenchmarkUpgrade(b *testing.B) {
	small := string(AppendRequest(nil, "localhost:8080", "/ws", [16]byte{1, 2, 3}, nil))
	for _, c := range []struct{ name, head string }{{"small", small}, {"browser", browserHead}} {
		buf := []byte(c.head)
		b.Run("parse/"+c.name, func(b *testing.B) {
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				scanned := 0
				if _, n, err := ParseHead(buf, &scanned, HeadLimits{Bytes: 8 << 10, Headers: 64}); n == 0 || err != nil {
					b.Fatal(n, err)
				}
			}
		})
		b.Run("whole/"+c.name, func(b *testing.B) {
			dst := make([]byte, 0, 512)
			b.ReportAllocs()
			for b.Loop() {
				scanned := 0
				h, _, err := ParseHead(buf, &scanned, HeadLimits{Bytes: 8 << 10, Headers: 64})
				if err != nil || CheckUpgrade(&h) != nil {
					b.Fatal(err)
				}
				if dst, err = AppendUpgrade(dst[:0], &h, Accept{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDeflate compresses a message, with the largest and the smallest window.
func BenchmarkDeflate(b *testing.B) {
	for _, d := range []Deflate{WindowBitsMax, WindowBitsMin} {
		for _, size := range []int{200, 1000, 16 << 10} {
			b.Run(fmt.Sprintf("window %d/json %d", d, size), func(b *testing.B) {
				payload := sample("json", size, 1)
				dst := make([]byte, 0, size+HeaderBytesMax)
				var c Deflater
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					dst = c.Append(dst[:0], d, Text, payload)
				}
				b.ReportMetric(float64(len(dst)), "frame-bytes")
			})
		}
	}
}

// BenchmarkInflate inflates a message of text with the buffer kept, and one that stops at the limit.
func BenchmarkInflate(b *testing.B) {
	for _, size := range []int{40, 200, 1000, 16 << 10} {
		b.Run(fmt.Sprintf("json %d", size), func(b *testing.B) {
			m := Message{Opcode: Text, Compressed: true, Payload: []byte(deflated(b, string(sample("json", size, 1))))}
			lim := benchLimits()
			var x Inflater
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.Inflate(lim, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("bomb of 16 MiB", func(b *testing.B) {
		m := Message{Opcode: Binary, Compressed: true, Payload: []byte(deflated(b, string(make([]byte, 16<<20))))}
		lim := benchLimits()
		var x Inflater
		b.ReportAllocs()
		for b.Loop() {
			if _, err := x.Inflate(lim, m); err == nil {
				b.Fatal("it was taken")
			}
		}
	})
}
