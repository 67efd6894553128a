package client_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/pulsewheel/pulsewheel/client"
)

// Serves the page and the client it loads, as the admin listener does.
func Example() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /demo", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, client.DemoPage())
	})
	mux.HandleFunc("GET /client.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		io.WriteString(w, client.Script())
	})

	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/client.js", nil))
	fmt.Println(answer.Code, answer.Header().Get("Content-Type"))
	// Output: 200 text/javascript; charset=utf-8
}
