package main

import (
	"testing"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/recorder"
)

// idlePanel is the chart with the logarithmic axis, of two servers: one with a figure, one without since it was withheld.
func idlePanel(least float64) (*results, panel) {
	o := newOutcome(3, provenance{})
	o.Servers = map[string]map[string]spread{
		"floor": {"bytes_per_connection": {Min: least, Median: least, Max: least}},
		"coder": {"bytes_per_connection": {Min: 17167, Median: 17385, Max: 22176}, "rss_bytes_at_2000": {Min: 1, Median: 1, Max: 1}},
		"gws":   {"rss_bytes_at_2000": {Min: 1, Median: 1, Max: 1}},
	}
	o.Withheld["gws"] = []string{"bytes_per_connection"}
	return &results{Scenarios: map[string]outcome{"idle": o}}, panels()[0]
}

// TestLogAxis: it begins below the least value, however far that is from the most, and not just at it.
func TestLogAxis(t *testing.T) {
	for _, test := range []struct {
		name  string
		least float64
		want  float64
	}{
		{"below ten", 8.19, 1},
		{"above ten", 70, 10},
		{"a power of ten", 10, 1},
		{"next to nothing", 0.02, 0.01},
		{"nothing", 0, 10000},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, pn := idlePanel(test.least)
			if got := r.logBase(pn); got != test.want {
				t.Errorf("the axis begins at %v, want %v", got, test.want)
			}
		})
	}
}

// TestBars looks at what is drawn: a bar with a width for a value, a word where there can be none.
func TestBars(t *testing.T) {
	r, pn := idlePanel(8.19)
	texts, widths := drawn(r, pn)
	if !texts[withheldCell] {
		t.Errorf("nothing says that the client was the limit of gws: %v", texts)
	}
	if len(widths) != 4 { // the page, two bars, and the sample in the legend
		t.Fatalf("%d boxes were drawn: %v", len(widths), widths)
	}
	for _, width := range widths {
		if width <= 1 {
			t.Errorf("a bar of %v points can't be seen", width)
		}
	}
	r, pn = idlePanel(-3)
	if texts, _ := drawn(r, pn); !texts["-3.00"] {
		t.Errorf("nothing says what has no place on a logarithmic axis: %v", texts)
	}
}

// drawn returns the texts of a chart and the widths of its boxes.
func drawn(r *results, pn panel) (texts map[string]bool, widths []vg.Length) {
	var canvas recorder.Canvas
	r.plot(pn).Draw(draw.NewCanvas(&canvas, panelWidth, panelHeight))
	texts = map[string]bool{}
	for _, action := range canvas.Actions {
		switch a := action.(type) {
		case *recorder.FillString:
			texts[a.String] = true
		case *recorder.Fill:
			if len(a.Path) != 5 || a.Path[0].Pos.Y == a.Path[2].Pos.Y {
				continue
			}
			widths = append(widths, a.Path[1].Pos.X-a.Path[0].Pos.X)
		}
	}
	return texts, widths
}
