package bench

import (
	"fmt"
	"html"
	"strings"
)

const (
	plotWidth  = 720.0
	plotHeight = 180.0
	plotMargin = 60.0
)

// Plot draws the report's series as SVG: one chart a unit, time to the right.
func Plot(r Report) []byte {
	var units []string
	charts := map[string][]Series{}
	for _, s := range r.Series {
		if charts[s.Unit] == nil {
			units = append(units, s.Unit)
		}
		charts[s.Unit] = append(charts[s.Unit], s)
	}
	step := plotHeight + 2*plotMargin
	var svg strings.Builder
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
`, plotWidth+2*plotMargin, step*float64(len(units)))
	for i, unit := range units {
		fmt.Fprintf(&svg, "<g transform=\"translate(%g %g)\">\n", plotMargin, plotMargin+step*float64(i))
		drawChart(&svg, unit, charts[unit])
		svg.WriteString("</g>\n")
	}
	svg.WriteString("</svg>\n")
	return []byte(svg.String())
}

func drawChart(svg *strings.Builder, unit string, all []Series) {
	end, top := extent(all)
	fmt.Fprintf(svg, `<path d="M0 0V%g H%g" fill="none" stroke="#888"/>
<text x="-6" y="4" text-anchor="end">%s</text><text x="-6" y="%g" text-anchor="end">0</text>
<text x="%g" y="%g" text-anchor="end">%.1f s</text><text x="0" y="-30">%s</text>
`, plotHeight, plotWidth, axis(top), plotHeight, plotWidth, plotHeight+18, end, html.EscapeString(unit))
	colours := []string{"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b"}
	for i, s := range all {
		colour := colours[i%len(colours)]
		fmt.Fprintf(svg, `<text x="%d" y="-12" fill="%s">%s</text><polyline fill="none" stroke="%s" stroke-width="1.5" points="`,
			i*int(plotWidth)/len(all), colour, html.EscapeString(s.Name), colour)
		for _, p := range s.Points {
			fmt.Fprintf(svg, "%.1f,%.1f ", p.At/end*plotWidth, plotHeight*(1-p.Value/top))
		}
		svg.WriteString("\"/>\n")
	}
}

// extent is never zero, to divide by.
func extent(all []Series) (end, top float64) {
	end, top = 1e-9, 1e-9
	for _, s := range all {
		for _, p := range s.Points {
			end, top = max(end, p.At), max(top, p.Value)
		}
	}
	return end, top
}

func axis(v float64) string {
	if v >= 100 {
		return count(v)
	}
	return fmt.Sprintf("%.2f", v)
}
