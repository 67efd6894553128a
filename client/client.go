package client

import _ "embed" // The two files below are part of the binary.

//go:embed pulsewheel.js
var script string

//go:embed demo.html
var demoPage string

// Script returns the JavaScript client, an ES module to be served as
// text/javascript under the name client.js.
func Script() string { return script }

// DemoPage returns the page on which the client can be tried, to be served as
// text/html; charset=utf-8 from the folder that holds client.js.
func DemoPage() string { return demoPage }
