// Command series draws series over time as one SVG file, one panel a series.
//
//	go test ./server -run 'TestCrowd$' -args -crowd-csv heartbeats.csv
//	cd bench/peers && go run ./series -in ../../heartbeats.csv -out ../../docs/heartbeats.svg -y 'heartbeats per 100 ms'
//
// A line of input is "name",x,y; lines of one name are one series. It lives beside the peers because the plotting library does.
package main

import (
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"image/color"
	"io"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// series is what one panel shows.
type series struct {
	name   string
	points plotter.XYs
}

func main() {
	in := flag.String("in", "", "CSV file: name, x, y")
	out := flag.String("out", "", "SVG file")
	x := flag.String("x", "seconds", "label of the x axis")
	y := flag.String("y", "", "label of the y axis")
	flag.Parse()
	if *in == "" || *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*in, *out, *x, *y); err != nil {
		fmt.Fprintln(os.Stderr, "series:", err)
		os.Exit(1)
	}
}

func run(in, out, x, y string) error {
	f, err := os.Open(in)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it is only read
	all, err := read(f)
	if err != nil {
		return err
	}
	svg, err := render(all, x, y)
	if err != nil {
		return err
	}
	w, err := os.Create(out)
	if err != nil {
		return err
	}
	_, err = svg.WriteTo(w)
	return errors.Join(err, w.Close())
}

// read takes the series in the order in which they begin.
func read(r io.Reader) (all []series, err error) {
	lines := csv.NewReader(r)
	lines.FieldsPerRecord = 3
	for {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		x, errX := strconv.ParseFloat(line[1], 64)
		y, errY := strconv.ParseFloat(line[2], 64)
		if err := errors.Join(errX, errY); err != nil {
			return nil, err
		}
		if len(all) == 0 || all[len(all)-1].name != line[0] {
			all = append(all, series{name: line[0]})
		}
		s := &all[len(all)-1]
		s.points = append(s.points, plotter.XY{X: x, Y: y})
	}
	if len(all) == 0 {
		return nil, errors.New("no lines")
	}
	return all, nil
}

// render draws one panel below the other.
func render(all []series, x, y string) (*vgsvg.Canvas, error) {
	const width, height = 24 * vg.Centimeter, 6 * vg.Centimeter
	svg := vgsvg.New(width, vg.Length(len(all))*height)
	tiles := draw.Tiles{Rows: len(all), Cols: 1, PadY: 3 * vg.Millimeter}
	for i, s := range all {
		p := plot.New()
		p.Title.Text, p.X.Label.Text, p.Y.Label.Text = s.name, x, y
		line, err := plotter.NewLine(s.points)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		line.Color, line.Width = color.RGBA{R: 0x1f, G: 0x5f, B: 0xbf, A: 0xff}, vg.Points(0.6)
		p.Add(plotter.NewGrid(), line)
		p.Y.Min = 0
		p.Draw(tiles.At(draw.New(svg), 0, i))
	}
	return svg, nil
}
