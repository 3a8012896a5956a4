package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	json "github.com/go-json-experiment/json"
)

// report is the result of one comparison.
type report struct {
	Bench   string   `json:"bench"`
	Ratio   *float64 `json:"ratio"` // null where a side could not be measured
	Goal    string   `json:"goal"`  // direction and number
	Met     bool     `json:"met"`
	Figures []figure `json:"figures"`
	Notes   []string `json:"notes,omitzero"`
	Machine machine  `json:"machine"`
}

// figure is a measured quantity: the median of n rounds, and their extremes.
type figure struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// machine is where the figures come from.
type machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	Go    string `json:"go"`
	OS    string `json:"os"`
	Date  string `json:"date"`
}

func thisMachine() machine {
	m := machine{
		CPU: runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS,
		Date: time.Now().UTC().Format(time.DateOnly),
	}
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return m // only Linux has it
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}

// goal is a bound for a ratio.
type goal struct {
	atMost bool
	bound  float64
	of     string // what the ratio is of
}

func atMost(bound float64, of string) goal  { return goal{true, bound, of} }
func atLeast(bound float64, of string) goal { return goal{false, bound, of} }

func (g goal) String() string {
	sign := ">="
	if g.atMost {
		sign = "<="
	}
	return fmt.Sprintf("%s %g %s", sign, g.bound, g.of)
}

func (g goal) met(ratio float64) bool {
	if g.atMost {
		return ratio <= g.bound
	}
	return ratio >= g.bound
}

// series are the values of a quantity in the rounds of a comparison.
type series struct {
	name, unit string
	values     []float64
}

func newSeries(name, unit string) *series { return &series{name: name, unit: unit} }

func (s *series) add(v float64) { s.values = append(s.values, v) }

func (s *series) figure() figure {
	v := slices.Sorted(slices.Values(s.values))
	f := figure{Name: s.name, Unit: s.unit, N: len(v)}
	if len(v) > 0 {
		f.Median, f.Min, f.Max = middle(v), v[0], v[len(v)-1]
	}
	return f
}

// middle is the median of sorted values.
func middle(v []float64) float64 {
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// constant is a figure that was measured once.
func constant(name, unit string, v float64) figure { return figure{name, unit, v, v, v, 1} }

// quotients pairs the rounds of two series: neighbours in time hear the same
// noise of the machine, so their quotient is steadier than either of them.
func quotients(name string, over, under *series) *series {
	q := newSeries(name, "x")
	for i := range min(len(over.values), len(under.values)) {
		if under.values[i] > 0 {
			q.add(over.values[i] / under.values[i])
		}
	}
	return q
}

// compared makes the report of over in terms of under.
func compared(name string, g goal, over, under *series) report {
	q := quotients("ratio", over, under)
	r := report{Bench: name, Goal: g.String(), Figures: []figure{q.figure(), over.figure(), under.figure()}}
	if len(q.values) > 0 {
		v := r.Figures[0].Median
		r.Ratio, r.Met = &v, g.met(v)
	}
	return r
}

func (r *report) add(figures ...figure) { r.Figures = append(r.Figures, figures...) }

func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// publish takes in a finished report. As JSON it is printed at once.
func (r *run) publish(p report) error {
	p.Machine = r.machine
	r.reports = append(r.reports, p)
	r.say("%s: %s (%s): %s", p.Bench, p.ratio(), p.Goal, p.verdict())
	if r.o.output != "json" {
		return nil
	}
	b, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(r.out, "%s\n", b)
	return err
}

func (p *report) ratio() string {
	if p.Ratio == nil {
		return "not measured"
	}
	return fmt.Sprintf("%.3g", *p.Ratio)
}

func (p *report) verdict() string {
	switch {
	case p.Ratio == nil:
		return "-"
	case p.Met:
		return "met"
	}
	return "MISSED"
}

// table prints all reports for people.
func (r *run) table() error {
	if r.o.output != "table" {
		return nil
	}
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s, %d cores, %s/%s, %s\n\n", r.machine.CPU, r.machine.Cores, r.machine.Go, r.machine.OS, r.machine.Date)
	fmt.Fprintln(w, "BENCH\tRATIO\tGOAL\t")
	for i := range r.reports {
		p := &r.reports[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Bench, p.ratio(), p.Goal, p.verdict())
	}
	fmt.Fprintln(w, "\nFIGURE\tMEDIAN\tMIN\tMAX\tUNIT\tN")
	for i := range r.reports {
		p := &r.reports[i]
		fmt.Fprintf(w, "%s\t\t\t\t\t\n", p.Bench)
		for _, f := range p.Figures {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%d\n", f.Name, number(f.Median), number(f.Min), number(f.Max), f.Unit, f.N)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i := range r.reports {
		for _, n := range r.reports[i].Notes {
			fmt.Fprintf(r.out, "\n%s: %s\n", r.reports[i].Bench, n)
		}
	}
	return nil
}

// processSeconds is the processor time that this process has used.
func processSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// number prints three digits of small values and all before the point of
// others.
func number(v float64) string {
	if v != 0 && v < 100 && v > -100 {
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprintf("%.0f", v)
}
