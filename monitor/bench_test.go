package monitor

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// discardWriter takes an answer without keeping it, so that the benchmark measures the making of it.
type discardWriter struct{ header http.Header }

func (d discardWriter) Header() http.Header         { return d.header }
func (d discardWriter) Write(p []byte) (int, error) { return len(p), nil }
func (d discardWriter) WriteHeader(int)             {}

func benchmarkPath(b *testing.B, path string) {
	h := New(Config{}, newFixedSource()).Handler()
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	r.Host = "localhost"
	w := discardWriter{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

func BenchmarkMetrics(b *testing.B) { benchmarkPath(b, "/metrics") }
func BenchmarkStats(b *testing.B)   { benchmarkPath(b, "/api/v1/stats") }
func BenchmarkHealth(b *testing.B)  { benchmarkPath(b, "/healthz") }
