package monitor

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// Control is what a Source may offer beside its figures, and then the API lists, kicks, sends and drains. All methods must be safe for
// concurrent use.
type Control interface {
	Inspect(from server.Place, limit int, user string) server.Page
	Lookup(id string) (server.Conn, bool)
	SendUser(user string, op server.Op, data []byte) (reached int, err error)
	Broadcast(op server.Op, data []byte) (reached int, err error)
	Drain() error
	Undrain() error
}

var _ Control = (*server.Server)(nil)

// errorJSON is the answer to every request of the API that went wrong. Codes are part of the interface.
type errorJSON struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// methods answers on one path of the API, by method.
func (m *Monitor) methods(handlers map[string]http.HandlerFunc) http.HandlerFunc {
	allow := strings.Join(slices.Sorted(maps.Keys(handlers)), ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		handle, ok := handlers[method]
		switch {
		case !ok:
			w.Header().Set("Allow", allow)
			refuse(w, r, http.StatusMethodNotAllowed, "method", "this path answers to "+allow)
		case method != http.MethodGet && !m.mayChange(r):
			refuse(w, r, http.StatusUnsupportedMediaType, "content_type",
				"a change without a bearer token needs Content-Type: application/json or application/octet-stream")
		default:
			handle(w, r)
		}
	}
}

// registerAPI adds the paths of the API.
func (m *Monitor) registerAPI(mux *http.ServeMux) {
	on := func(path string, handlers map[string]http.HandlerFunc) { mux.HandleFunc(path, m.methods(handlers)) }
	on("/api/v1/stats", map[string]http.HandlerFunc{"GET": m.serveStats})
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusNotFound, "not_found", "no such path")
	})
	if m.control == nil {
		return
	}
	on("/api/v1/connections", map[string]http.HandlerFunc{"GET": m.listConnections})
	on("/api/v1/connections/{id}", map[string]http.HandlerFunc{"GET": m.showConnection, "DELETE": m.kickConnection})
	on("/api/v1/connections/{id}/send", map[string]http.HandlerFunc{"POST": m.sendConnection})
	on("/api/v1/users/{user}/send", map[string]http.HandlerFunc{"POST": m.sendUser})
	on("/api/v1/broadcast", map[string]http.HandlerFunc{"POST": m.broadcast})
	on("/api/v1/drain", map[string]http.HandlerFunc{"POST": m.drain, "DELETE": m.drain})
}

// connectionJSON is one connection. Keys are part of the interface: they may be added, never renamed.
type connectionJSON struct {
	ID          string   `json:"id"`
	Address     string   `json:"address"` // empty on a Unix socket
	User        string   `json:"user"`
	AgeSeconds  int64    `json:"age_seconds"`
	LastHeardMS int64    `json:"last_heard_ms"` // ago
	RTTMS       *float64 `json:"rtt_ms"`        // smoothed; null: none measured yet
	Mode        string   `json:"mode"`
	IntervalMS  int64    `json:"interval_ms"` // of the server's heartbeats; 0: none
	TimeoutMS   int64    `json:"timeout_ms"`  // 0: never expires
	UnsentBytes int      `json:"unsent_bytes"`
}

func connectionOf(info server.Info) connectionJSON {
	c := connectionJSON{
		ID:          info.ID,
		User:        info.User,
		AgeSeconds:  int64(max(0, info.Age) / time.Second),
		LastHeardMS: info.LastHeard.Milliseconds(),
		Mode:        info.Mode.String(),
		IntervalMS:  info.Interval.Milliseconds(),
		TimeoutMS:   info.Timeout.Milliseconds(),
		UnsentBytes: info.Unsent,
	}
	if info.RemoteAddr.IsValid() {
		c.Address = info.RemoteAddr.String()
	}
	if info.RTT > 0 {
		rtt := float64(info.RTT) / float64(time.Millisecond)
		c.RTTMS = &rtt
	}
	return c
}

// listJSON is a page of the listing. It may be short, even empty, while there is a cursor: the listing ends where there is none.
type listJSON struct {
	Connections []connectionJSON `json:"connections"`
	Cursor      string           `json:"cursor,omitempty"`
}

func (m *Monitor) listConnections(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit := listLimitDefault
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil && !errors.Is(err, strconv.ErrRange) || n < 1 {
			refuse(w, r, http.StatusBadRequest, "bad_limit", "limit is a number from 1 on")
			return
		}
		limit = min(n, listLimitMax)
	}
	from, ok := parseCursor(query.Get("cursor"))
	if !ok {
		refuse(w, r, http.StatusBadRequest, "bad_cursor", "cursor is what the page before ended with")
		return
	}
	page := m.control.Inspect(from, limit, query.Get("user"))
	list := listJSON{Connections: make([]connectionJSON, 0, len(page.Connections)), Cursor: formatCursor(page.Next)}
	for _, info := range page.Connections {
		list.Connections = append(list.Connections, connectionOf(info))
	}
	writeJSON(w, http.StatusOK, list)
}

// cursorVersion lets the meaning of a cursor change without an old one being misread.
const cursorVersion = 1

func formatCursor(at server.Place) string {
	if at == 0 {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(binary.AppendUvarint([]byte{cursorVersion}, uint64(at)))
}

// parseCursor reads a cursor; an empty one is the beginning.
func parseCursor(text string) (at server.Place, ok bool) {
	if text == "" {
		return 0, true
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) < 2 || raw[0] != cursorVersion {
		return 0, false
	}
	place, n := binary.Uvarint(raw[1:])
	return server.Place(place), n == len(raw)-1
}

// find looks up the connection that a path names, or answers that there is none.
func (m *Monitor) find(w http.ResponseWriter, r *http.Request) (server.Conn, bool) {
	c, ok := m.control.Lookup(r.PathValue("id"))
	if !ok {
		noConnection(w, r)
	}
	return c, ok
}

func noConnection(w http.ResponseWriter, r *http.Request) {
	refuse(w, r, http.StatusNotFound, "no_connection", "no open connection has this id")
}

func (m *Monitor) showConnection(w http.ResponseWriter, r *http.Request) {
	c, ok := m.find(w, r)
	if !ok {
		return
	}
	info, ok := c.Info()
	if !ok {
		noConnection(w, r)
		return
	}
	writeJSON(w, http.StatusOK, connectionOf(info))
}

func (m *Monitor) kickConnection(w http.ResponseWriter, r *http.Request) {
	c, ok := m.find(w, r)
	if !ok {
		return
	}
	c.Kick()
	m.cfg.Logger.Info("connection kicked", "id", r.PathValue("id"))
	writeJSON(w, http.StatusOK, struct {
		Kicked string `json:"kicked"`
	}{r.PathValue("id")})
}

// reachedJSON tells how many connections took a message.
type reachedJSON struct {
	Reached int `json:"reached"`
}

func (m *Monitor) sendConnection(w http.ResponseWriter, r *http.Request) {
	m.send(w, r, func(op server.Op, data []byte) (int, error) {
		c, ok := m.control.Lookup(r.PathValue("id"))
		if !ok {
			return 0, server.ErrClosed
		}
		if err := c.Send(op, data); err != nil {
			return 0, err
		}
		return 1, nil
	})
}

func (m *Monitor) sendUser(w http.ResponseWriter, r *http.Request) {
	m.send(w, r, func(op server.Op, data []byte) (int, error) { return m.control.SendUser(r.PathValue("user"), op, data) })
}

func (m *Monitor) broadcast(w http.ResponseWriter, r *http.Request) {
	m.send(w, r, m.control.Broadcast)
}

// send reads one message and hands it on.
func (m *Monitor) send(w http.ResponseWriter, r *http.Request, to func(server.Op, []byte) (int, error)) {
	op := server.Text
	switch r.URL.Query().Get("binary") {
	case "", "0", "false":
	case "1", "true":
		op = server.Binary
	default:
		refuse(w, r, http.StatusBadRequest, "bad_binary", "binary is 0 or 1")
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, m.cfg.messageBytesMax()))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		refuse(w, r, http.StatusRequestEntityTooLarge, "too_large", "a message has at most "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes")
		return
	case err != nil:
		refuse(w, r, http.StatusBadRequest, "unreadable", "the body did not arrive")
		return
	}
	reached, err := to(op, data)
	switch {
	case errors.Is(err, server.ErrEncoding):
		refuse(w, r, http.StatusBadRequest, "not_utf8", "a text message is UTF-8; ?binary=1 sends any bytes")
	case errors.Is(err, server.ErrClosed):
		noConnection(w, r)
	case errors.Is(err, server.ErrBackpressure):
		refuse(w, r, http.StatusConflict, "slow_consumer", "the peer doesn't read; the connection is being closed")
	case err != nil:
		refuse(w, r, http.StatusInternalServerError, "internal", err.Error())
	default:
		writeJSON(w, http.StatusOK, reachedJSON{reached})
	}
}

// drain begins or ends a drain.
func (m *Monitor) drain(w http.ResponseWriter, r *http.Request) {
	begin := r.Method == http.MethodPost
	change, message := m.control.Undrain, "drain ended by the admin listener"
	if begin {
		change, message = m.control.Drain, "drain begun by the admin listener"
	}
	m.drainMu.Lock()
	before := m.source.Stats().Draining
	err := change()
	m.drainMu.Unlock()
	switch {
	case errors.Is(err, server.ErrEnding):
		refuse(w, r, http.StatusConflict, "ending", "the server shuts down")
		return
	case err != nil:
		refuse(w, r, http.StatusServiceUnavailable, "not_serving", err.Error())
		return
	}
	if begin != before {
		m.cfg.Logger.Info(message) // once at the change: a client that asks again and again fills no log
	}
	writeJSON(w, http.StatusOK, struct {
		Draining bool `json:"draining"`
	}{begin})
}

// writeJSON answers with a value that can be marshalled.
func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic("monitor: an answer that JSON can't hold: " + err.Error())
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // Whoever has gone needs no answer.
}
