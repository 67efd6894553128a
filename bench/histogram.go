package main

import (
	"encoding/json"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The range of what is measured, in ns: a microsecond is finer than a loop's turn, and what takes longer than two
// minutes is counted as two minutes rather than left out. Three digits keep the error of a percentile below 0.1 %.
const (
	latencyLowest  = int64(time.Microsecond)
	latencyHighest = int64(2 * time.Minute)
	latencyDigits  = 3
)

// histogram holds latencies in ns. One goroutine at a time may use it.
type histogram struct {
	h *hdrhistogram.Histogram
}

func newHistogram() *histogram {
	return &histogram{h: hdrhistogram.New(latencyLowest, latencyHighest, latencyDigits)}
}

// record counts one latency; out of range it counts as the end of the range.
func (h *histogram) record(ns int64) {
	_ = h.h.RecordValue(min(max(ns, 0), latencyHighest)) // within the range there is no error
}

func (h *histogram) count() int64 { return h.h.TotalCount() }

// merge adds what another process recorded; nil: it recorded nothing.
func (h *histogram) merge(other *histogram) {
	if other != nil {
		h.h.Merge(other.h) // of the same range, so nothing is dropped
	}
}

// MarshalJSON is HdrHistogram's own compressed form (V2), which loses nothing.
func (h *histogram) MarshalJSON() ([]byte, error) {
	encoded, err := h.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, err
	}
	return json.Marshal(encoded)
}

// UnmarshalJSON reads that form.
func (h *histogram) UnmarshalJSON(text []byte) error {
	var encoded []byte
	if err := json.Unmarshal(text, &encoded); err != nil {
		return err
	}
	decoded, err := hdrhistogram.Decode(encoded)
	if err != nil {
		return err
	}
	*h = *newHistogram()
	h.h.Merge(decoded)
	return nil
}

// latencies are percentiles in µs, as the JSON object carries them.
type latencies struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

func (h *histogram) latencies() latencies {
	us := func(q float64) float64 { return float64(h.h.ValueAtQuantile(q)) / 1e3 }
	return latencies{P50: us(50), P90: us(90), P99: us(99), P999: us(99.9), Max: float64(h.h.Max()) / 1e3}
}
