package monitor

import (
	_ "embed" // The page is part of the binary.
	"io"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pulsewheel/pulsewheel/client"
)

// livePage is the page at /.
//
//go:embed page.html
var livePage string

// pagePolicy lets the page run its own script and connect to WebSocket servers, and nothing else.
const pagePolicy = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self' ws: wss:; " +
	"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler answers every path of the package's table, for a program with an HTTP server of its own. The Host check needs the
// context of an http.Server's request.
func (m *Monitor) Handler() http.Handler {
	registry := m.registry()
	guarded := http.NewServeMux()
	guarded.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry:            registry,
		MaxRequestsInFlight: scrapesMax,
		ErrorLog:            m.scrapeLog(),
	}))
	m.registerAPI(guarded)
	guarded.HandleFunc("GET /client.js", serveText("text/javascript; charset=utf-8", client.Script()))
	guarded.HandleFunc("GET /demo", serveText("text/html; charset=utf-8", client.DemoPage()))
	guarded.HandleFunc("GET /{$}", serveText("text/html; charset=utf-8", livePage))
	guarded.HandleFunc("GET /events", m.live.serve)
	guarded.HandleFunc("GET /debug/statsviz/", m.charts.serve)
	// The package registers itself on http.DefaultServeMux as well, which nothing here serves.
	profiles := atMost(profilesMax, "enough profiles are being made", profile)
	guarded.HandleFunc("GET /debug/pprof/", profiles)
	guarded.HandleFunc("POST /debug/pprof/symbol", profiles) // go tool pprof asks for names so

	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { health(w, r, nil) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) { health(w, r, m.source.Ready()) })
	mux.Handle("/", m.guarded(guarded))
	return mux
}

// profile answers below /debug/pprof/.
func profile(w http.ResponseWriter, r *http.Request) {
	switch strings.TrimPrefix(r.URL.Path, "/debug/pprof/") {
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Index(w, r)
	}
}

// health answers a probe.
func health(w http.ResponseWriter, r *http.Request, problem error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, r, http.StatusMethodNotAllowed, "method", "GET or HEAD")
		return
	}
	if problem != nil {
		refuse(w, r, http.StatusServiceUnavailable, "not_ready", problem.Error())
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n") // A probe that has gone needs no answer.
}

func (m *Monitor) serveStats(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, m.statsNow())
}

// serveText answers with a file of the binary.
func serveText(contentType, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Type", contentType)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("Referrer-Policy", "no-referrer")
		_, _ = io.WriteString(w, text) // Whoever has gone needs no answer.
	}
}
