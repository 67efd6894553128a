package client_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/client"
)

// The embedded text must be the shipped file, byte for byte: a stale or a
// filtered copy would mean that browsers run something that was never tested.
func TestEmbeddedFilesAreTheShippedOnes(t *testing.T) {
	tests := []struct {
		name string
		file string
		got  string
	}{
		{name: "script", file: "pulsewheel.js", got: client.Script()},
		{name: "page", file: "demo.html", got: client.DemoPage()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want, err := os.ReadFile(test.file)
			if err != nil {
				t.Fatal(err)
			}
			if test.got != string(want) {
				t.Errorf("embedded %s differs from the file: %d bytes, want %d", test.file, len(test.got), len(want))
			}
		})
	}
}

// npm publishes this folder alone, so it has a copy of the licence, which must stay one.
func TestPackageCarriesTheLicence(t *testing.T) {
	own, err := os.ReadFile("LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(own, want) {
		t.Error("client/LICENSE differs from LICENSE")
	}
}

// The page must work offline and beside client.js, so it may name no other host
// and has to import the module by the name under which it is served.
func TestDemoPageIsSelfContained(t *testing.T) {
	page := client.DemoPage()
	if !strings.Contains(page, `from "./client.js"`) {
		t.Error(`the page doesn't import "./client.js"`)
	}
	for _, outside := range []string{"http://", "https://", `src="//`, `href="//`, "@import", "url("} {
		if strings.Contains(page, outside) {
			t.Errorf("the page contains %q: it must load nothing from outside", outside)
		}
	}
}

func TestAccessorsDoNotAllocate(t *testing.T) {
	allocs := testing.AllocsPerRun(100, func() {
		if client.Script() == "" || client.DemoPage() == "" {
			t.Fatal("nothing embedded")
		}
	})
	if allocs != 0 {
		t.Errorf("allocations = %v, want 0", allocs)
	}
}
