package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// size is a count of bytes, written as 64KiB: binary units, and bytes without one.
type size int

// sizeUnits go from the largest to the smallest; each suffix but the last stands for that many bytes.
func sizeUnits() []struct {
	suffix string
	bytes  int64
} {
	return []struct {
		suffix string
		bytes  int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1}, {"", 1}}
}

// String prints the largest unit that leaves no rest.
func (s size) String() string {
	for _, unit := range sizeUnits()[:3] {
		if s != 0 && int64(s)%unit.bytes == 0 {
			return strconv.FormatInt(int64(s)/unit.bytes, 10) + unit.suffix
		}
	}
	return strconv.Itoa(int(s))
}

// The kernel takes sizes as C ints.
const sizeMax = math.MaxInt32

func parseSize(text string) (size, error) {
	for _, unit := range sizeUnits() {
		digits, ok := cutSuffixFold(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			break
		}
		if err != nil || int64(n) > sizeMax/unit.bytes {
			return 0, fmt.Errorf("%q is more than %d bytes", text, sizeMax)
		}
		return size(int64(n) * unit.bytes), nil
	}
	return 0, fmt.Errorf("%q is not a size such as 64KiB or 1MiB", text)
}

// percent is a share, written as 90%.
type percent float64

// String prints what parsePercent reads.
func (p percent) String() string { return strconv.FormatFloat(float64(p), 'g', -1, 64) + "%" }

func parsePercent(text string) (percent, error) {
	digits, _ := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n > 100 {
		return 0, fmt.Errorf("%q is not a share such as 90%%", text)
	}
	return percent(n), nil
}

// cutSuffixFold is strings.CutSuffix without regard to case.
func cutSuffixFold(text, suffix string) (before string, found bool) {
	if cut := len(text) - len(suffix); cut >= 0 && strings.EqualFold(text[cut:], suffix) {
		return text[:cut], true
	}
	return text, false
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 25s or 1m30s", text)
	}
	if d < 0 {
		return 0, fmt.Errorf("%q must not be negative", text)
	}
	return d, nil
}

// formatDuration leaves out the zero units that Duration.String appends: 10m, not 10m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func parseCount(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	switch {
	case errors.Is(err, strconv.ErrRange) && n > 0:
		return 0, fmt.Errorf("%q is more than %d", text, math.MaxInt32)
	case err != nil:
		return 0, fmt.Errorf("%q is not a whole number", text)
	case n < 0:
		return 0, fmt.Errorf("%q must not be negative", text)
	}
	return int(n), nil
}

func parseFactor(text string) (float64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	if f < 0 {
		return 0, fmt.Errorf("%q must not be negative", text)
	}
	return f, nil
}

func parseBool(text string) (bool, error) {
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%q is neither true nor false", text)
	}
	return b, nil
}

// setScalar parses a text into an option's field of any kind but a list.
func setScalar(target reflect.Value, text string) error {
	switch field := target.Addr().Interface().(type) {
	case *string:
		*field = text
		if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("%q holds control characters or isn't UTF-8", text)
		}
		return nil
	case *int:
		return assign(field, text, parseCount)
	case *float64:
		return assign(field, text, parseFactor)
	case *bool:
		return assign(field, text, parseBool)
	case *time.Duration:
		return assign(field, text, parseDuration)
	case *percent:
		return assign(field, text, parsePercent)
	case *size:
		return assign(field, text, parseSize)
	default:
		panic(fmt.Sprintf("an option of type %v has no parser", target.Type()))
	}
}

func assign[T any](field *T, text string, parse func(string) (T, error)) (err error) {
	*field, err = parse(text)
	return err
}

// readBounded reads a small file that the operator named.
func readBounded(path string, bytesMax int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, bytesMax+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > bytesMax {
		return nil, fmt.Errorf("%s: more than %d bytes", path, bytesMax)
	}
	return text, nil
}

// oneLine keeps a message that holds somebody's input from breaking the line or the terminal.
func oneLine(message string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, message)
}
