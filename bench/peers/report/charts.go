package main

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

const (
	panelWidth, panelHeight = 13 * vg.Centimeter, 11 * vg.Centimeter
	panelColumns            = 2
	// groupShare is how much of a server's row its bars fill.
	groupShare = 0.76
	// legendRow is the room for a line of the legend above the bars, in rows.
	legendRow = 0.7
	// wordSize and wordIndent are those of a word that stands for a bar; it must fit between the neighbours of three.
	wordSize, wordIndent = vg.Length(6), vg.Length(2)
	// shortest is by how much a logarithmic axis begins below the least value, so that its bar can be seen.
	shortest = 1.25
	// logTicksAll and logTicksMost are the ratios of a logarithmic axis' ends up to which there is room for its labels at 2,
	// and at 5.
	logTicksAll, logTicksMost = 1e3, 1e4
)

// panel is one chart: the rows of the table whose bars stand side by side.
type panel struct {
	title  string
	log    bool
	series []series
}

type series struct {
	label string
	line  row
}

// panels lists the charts of the page.
func panels() []panel {
	at := func(scenario, figure string, divide float64) row {
		return row{scenario: scenario, figure: figure, divide: divide}
	}
	sizes := func(scenario, figure string, divide float64) []series {
		return []series{
			{"100 connections", at(scenario+"-100", figure, divide)},
			{"1,000", at(scenario+"-1000", figure, divide)},
			{"10,000", at(scenario+"-10000", figure, divide)},
		}
	}
	echoes := func(figure string, divide float64) []series { return sizes("echo", figure, divide) }
	paced := func(figure string) []series { return sizes("paced", figure, 0) }
	beats := func(figure string) []series {
		return []series{
			{"10,000 connections, every 2 s", at("heartbeat-10000", figure, 0)},
			{"3,000, every 1 s", at("heartbeat-3000", figure, 0)},
		}
	}
	return []panel{
		{title: "Bytes resident per idle connection (logarithmic)", log: true, series: []series{
			{"idle", at("idle", "bytes_per_connection", 0)},
			{"beating", at("idle-beating-1s", "bytes_per_connection", 0)},
			{"after one echo", at("idle-echo-20s", "bytes_per_connection_after_echo", 0)},
		}},
		{title: "CPU per ping and pong, µs", series: beats("cpu_us_per_beat")},
		{title: "System calls per ping and pong", series: beats("syscalls_per_beat")},
		{title: "CPU per connect and upgrade, µs", series: []series{{"", at("storm", "cpu_us_per_open", 0)}}},
		{title: "Echoes per second, thousands", series: echoes("messages_per_second", 1000)},
		{title: "CPU per echo, µs", series: echoes("cpu_us_per_echo", 0)},
		{title: "Echo latency at 10,000 a second, p50, µs", series: paced("latency_us_p50")},
		{title: "Echo latency at 10,000 a second, p99, µs (logarithmic)", log: true, series: paced("latency_us_p99")},
	}
}

// palette can be told apart by the colour-blind and in grey.
func palette(i int) color.Color {
	return []color.Color{
		color.RGBA{R: 0x1b, G: 0x4f, B: 0x72, A: 0xff},
		color.RGBA{R: 0xe0, G: 0x8e, B: 0x1e, A: 0xff},
		color.RGBA{R: 0x7f, G: 0xb3, B: 0xa5, A: 0xff},
	}[i]
}

// bar is one median with its range, on the row of a server, or the word that stands for it.
type bar struct {
	row   float64
	value spread
	word  string
}

// bars draws one series. It is not the library's bar chart because that begins at zero, which a logarithmic axis does
// not have, and has no ranges.
type bars struct {
	list  []bar
	base  float64 // where a bar begins
	shift float64 // from the middle of the row
	width float64
	fill  color.Color
	words draw.TextStyle
}

// Plot implements plot.Plotter.
func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, one := range b.list {
		middle := one.row + b.shift
		if one.word != "" {
			c.FillText(b.words, vg.Point{X: x(b.base) + wordIndent, Y: y(middle)}, one.word)
			continue
		}
		low, high := y(middle-b.width/2), y(middle+b.width/2)
		left, right := x(b.base), x(max(one.value.Median, b.base))
		c.FillPolygon(b.fill, []vg.Point{{X: left, Y: low}, {X: right, Y: low}, {X: right, Y: high}, {X: left, Y: high}})
		style := draw.LineStyle{Color: color.Gray{Y: 0x30}, Width: vg.Points(0.8)}
		c.StrokeLine2(style, x(max(one.value.Min, b.base)), y(middle), x(max(one.value.Max, b.base)), y(middle))
	}
}

// DataRange implements plot.DataRanger.
func (b bars) DataRange() (xmin, xmax, ymin, ymax float64) {
	xmin, xmax, ymin, ymax = b.base, b.base, math.Inf(1), math.Inf(-1)
	for _, one := range b.list {
		xmax = max(xmax, one.value.Max)
		ymin, ymax = min(ymin, one.row-0.5), max(ymax, one.row+0.5)
	}
	return xmin, xmax, ymin, ymax
}

// Thumbnail implements plot.Thumbnailer.
func (b bars) Thumbnail(c *draw.Canvas) {
	c.FillPolygon(b.fill, []vg.Point{c.Min, {X: c.Max.X, Y: c.Min.Y}, c.Max, {X: c.Min.X, Y: c.Max.Y}})
}

// ticks are the library's marks for a linear axis, labelled without trailing zeros.
type ticks struct{ plot.DefaultTicks }

// Ticks implements plot.Ticker.
func (t ticks) Ticks(low, high float64) []plot.Tick {
	list := t.DefaultTicks.Ticks(low, high)
	for i, tick := range list {
		if tick.Label != "" {
			list[i].Label = label(tick.Value)
		}
	}
	return list
}

// logTicks labels 1, 2 and 5 of each power of ten where there is room: the ranges here are often shorter than one.
type logTicks struct{}

// Ticks implements plot.Ticker.
func (logTicks) Ticks(low, high float64) (list []plot.Tick) {
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high; power *= 10 {
		for lead := 1.0; lead < 10; lead++ {
			tick := plot.Tick{Value: lead * power}
			if lead == 1 || lead == 5 && high/low < logTicksMost || lead == 2 && high/low < logTicksAll {
				tick.Label = label(tick.Value)
			}
			if tick.Value >= low*(1-1e-9) && tick.Value <= high {
				list = append(list, tick)
			}
		}
	}
	return list
}

func label(v float64) string { return strconv.FormatFloat(v, 'g', 10, 64) }

// bar is what a chart shows of a server's figure; nothing if it was not measured.
func (r *results) bar(line row, server string, base float64) (bar, bool) {
	if r.withheld(line, server) {
		return bar{word: withheldCell}, true
	}
	value, ok := r.spreadOf(line, server)
	if ok && value.Median <= base {
		return bar{word: number(value.Median)}, true // zero or less, or less than nothing on a logarithmic axis
	}
	return bar{value: value}, ok
}

// plot makes one chart; nil if nothing of it was measured.
func (r *results) plot(pn panel) *plot.Plot {
	base := 0.0
	if pn.log {
		base = r.logBase(pn)
	}
	names := slices.DeleteFunc(r.shown(), func(name string) bool {
		return !slices.ContainsFunc(pn.series, func(s series) bool { _, ok := r.bar(s.line, name, base); return ok })
	})
	if len(names) == 0 {
		return nil
	}
	slices.Reverse(names) // the first goes to the top
	p := plot.New()
	p.Title.Text = pn.title
	p.Title.Padding = vg.Points(6)
	p.X.Min, p.Y.Min, p.Y.Max = base, -0.5, float64(len(names))-0.5
	p.X.Tick.Marker = ticks{}
	if pn.log {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{}
	}
	p.NominalY(names...)
	words := p.Legend.TextStyle
	words.Font.Size, words.YAlign = wordSize, draw.YCenter
	width := groupShare / float64(len(pn.series))
	for i, s := range pn.series {
		b := bars{base: base, width: width, fill: palette(i), words: words, shift: (float64(len(pn.series)-1)/2 - float64(i)) * width}
		for at, name := range names {
			if one, ok := r.bar(s.line, name, base); ok {
				one.row = float64(at)
				b.list = append(b.list, one)
			}
		}
		if len(b.list) == 0 {
			continue
		}
		p.Add(b)
		if s.label != "" {
			p.Legend.Add(s.label, b)
			p.Y.Max += legendRow
		}
	}
	p.Legend.Top, p.Legend.Padding = true, vg.Points(2)
	p.X.Max = max(p.X.Max*1.05, base+1) // an axis needs a length, even if there are words only
	return p
}

// logBase is the power of ten that leaves room for the least positive value of all.
func (r *results) logBase(pn panel) float64 {
	least := math.Inf(1)
	for _, s := range pn.series {
		for _, name := range r.shown() {
			if v, ok := r.spreadOf(s.line, name); ok && v.Min > 0 {
				least = min(least, v.Min)
			}
		}
	}
	if math.IsInf(least, 1) {
		return 1
	}
	return math.Pow(10, math.Floor(math.Log10(least/shortest)))
}

// charts draws all that was measured on one page.
func (r *results) charts(name string) error {
	var list []*plot.Plot
	for _, pn := range panels() {
		if p := r.plot(pn); p != nil {
			list = append(list, p)
		}
	}
	rows := (len(list) + panelColumns - 1) / panelColumns
	grid := make([][]*plot.Plot, rows)
	for i := range grid {
		grid[i] = make([]*plot.Plot, panelColumns)
		copy(grid[i], list[i*panelColumns:min((i+1)*panelColumns, len(list))])
	}
	const pad = 8 * vg.Millimeter
	page := vgimg.NewWith(vgimg.UseWH(panelColumns*panelWidth, vg.Length(rows)*panelHeight), vgimg.UseDPI(110), vgimg.UseBackgroundColor(color.White))
	tiles := draw.Tiles{Rows: rows, Cols: panelColumns, PadX: pad, PadY: pad, PadTop: pad / 2, PadBottom: pad / 2, PadLeft: pad / 2, PadRight: pad / 2}
	canvases := plot.Align(grid, tiles, draw.New(page))
	for i, line := range grid {
		for j, p := range line {
			if p != nil {
				p.Draw(canvases[i][j])
			}
		}
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := (vgimg.PngCanvas{Canvas: page}).WriteTo(out); err != nil {
		return fmt.Errorf("%s: %w", name, errors.Join(err, out.Close()))
	}
	return out.Close()
}
