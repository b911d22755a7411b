package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConfig_NamesEveryMistake(t *testing.T) {
	t.Parallel()
	err := Config{Messages: -1, Size: 3, Rounds: -1, Rate: -1, Duration: -time.Second, History: []int{5, 1}}.Validate()
	if err == nil {
		t.Fatal("Validate() = nil, want mistakes")
	}
	for _, name := range []string{"messages", "size", "rounds", "rate", "duration", "history"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("Validate() = %v, want a word about %s", err, name)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("Validate() of the zero value = %v, want nil", err)
	}
}

func TestMedian_IsTheMiddle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"none", nil, 0},
		{"odd, unsorted", []float64{9, 1, 2}, 2},
		{"even", []float64{4, 1, 2, 3}, 2.5},
	} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("%s: median(%v) = %v, want %v", tt.name, tt.values, got, tt.want)
		}
	}
}

func TestCount_SeparatesThousands(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 999.4: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(v); got != want {
			t.Errorf("count(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestWithDatabase_ChangesNothingElse(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"postgres://u:p@h:5/app?sslmode=disable": "postgres://u:p@h:5/b?sslmode=disable",
		"postgres://h/?dbname=app":               "postgres://h/b",
		"host=h dbname=app":                      "host=h dbname=app dbname=b",
		"":                                       " dbname=b",
	} {
		if got := withDatabase(dsn, "b"); got != want {
			t.Errorf("withDatabase(%q) = %q, want %q", dsn, got, want)
		}
	}
}

func TestMeter_KeepsTheSum(t *testing.T) {
	t.Parallel()
	var m meter
	m.add(0.1, 10)
	m.add(2, 30) // at the very end
	s := m.series("x", 2)
	sum := 0.0
	for _, p := range s.Points {
		sum += p.Value * 2 / float64(len(s.Points))
	}
	if round(sum, 6) != 40 {
		t.Errorf("the rates add up to %v messages, want 40", sum)
	}
}

func TestPlot_IsXMLWithEverySeries(t *testing.T) {
	t.Parallel()
	svg := Plot(Report{Series: []Series{
		{Name: "p50 <&>", Unit: "ms", Points: []Point{{0, 1}, {1, 2}}},
		{Name: "rate", Unit: "messages/s", Points: []Point{{0, 0}}},
		{Name: "empty", Unit: "ms"},
	}})
	lines := 0
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 3 {
		t.Errorf("%d lines, want 3", lines)
	}
	if strings.Contains(string(svg), "NaN") || strings.Contains(string(svg), "Inf") {
		t.Errorf("a coordinate is no number:\n%s", svg)
	}
}
