package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

func each[T any](list []T, f func(T) float64) []float64 {
	values := make([]float64, len(list))
	for i, v := range list {
		values[i] = f(v)
	}
	return values
}

// median is rounded to what a benchmark can know.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return round((sorted[mid-1]+sorted[mid])/2, 3)
	}
	return round(sorted[mid], 3)
}

func round(v float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(v*scale) / scale
}

// count writes a number as people do.
func count(v float64) string {
	s := strconv.FormatInt(int64(math.Round(v)), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func list(values []float64) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strings.Join(words, " ")
}

// sleep waits for d, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errTooLate = errors.New("it did not happen in time")

// until asks done every 10 ms, for at most d.
func (l *lab) until(ctx context.Context, d time.Duration, done func() (bool, error)) error {
	for deadline := time.Now().Add(d); time.Now().Before(deadline); {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %v", errTooLate, d)
}

// Point is a value at a time, in seconds.
type Point struct{ At, Value float64 }

// Series is one line of a plot.
type Series struct {
	Name, Unit string
	Points     []Point
}

// meter turns what happened when into a rate over time.
type meter struct{ at []Point }

func (m *meter) add(at float64, n int) { m.at = append(m.at, Point{at, float64(n)}) }

// series cuts the time until end into 100 parts.
func (m *meter) series(name string, end float64) Series {
	const parts = 100
	s := Series{Name: name, Unit: "messages/s", Points: make([]Point, parts)}
	width := end / parts
	for i := range s.Points {
		s.Points[i].At = (float64(i) + 0.5) * width
	}
	for _, p := range m.at {
		i := min(parts-1, max(0, int(p.At/width)))
		s.Points[i].Value += p.Value / width
	}
	return s
}
