package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestSeries(t *testing.T) {
	all, err := read(strings.NewReader("\"a\",0,1\n\"a\",0.1,2\n\"b, c\",0,3\n\"b, c\",1,4\n"))
	if err != nil || len(all) != 2 || all[0].name != "a" || len(all[0].points) != 2 || all[1].name != "b, c" || all[1].points[1].Y != 4 {
		t.Fatalf("read %v, %v", all, err)
	}
	svg, err := render(all, "seconds", "n")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := svg.WriteTo(&b); err != nil || !strings.Contains(b.String(), "<svg") || !strings.Contains(b.String(), "b, c") {
		t.Errorf("%v, %.100q", err, b.String())
	}
	for _, bad := range []string{"", "a,1\n", "a,x,1\n", "a,1,y\n"} {
		if all, err := read(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: read %v", bad, all)
		}
	}
}
