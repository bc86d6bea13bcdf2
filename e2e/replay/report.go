package replay

import (
	"fmt"
	"io"
	"sync"
)

// Result is what came of one recording.
type Result struct {
	File string
	// Status is ok, differs or skipped.
	Status string
	// Detail is the first difference, or why the file was skipped.
	Detail string
}

// The values of Result.Status.
const (
	OK      = "ok"
	Differs = "differs"
	Skipped = "skipped"
)

// report collects results and prints a line each.
type report struct {
	out io.Writer
	// asked are the recordings that count, and found is called when one of them has its result.
	asked map[string]bool
	found func()

	mu      sync.Mutex
	results []Result
	done    map[string]bool
}

func (p *report) add(file, status, detail string) {
	if p.note(file, status, detail) && p.found != nil {
		p.found()
	}
}

// note reports whether the result counts and is the file's first.
func (p *report) note(file, status, detail string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done[file] || !p.asked[file] {
		return false
	}
	p.done[file] = true
	p.results = append(p.results, Result{File: file, Status: status, Detail: detail})
	line := fmt.Sprintf("%-8s %s", status, file)
	if detail != "" {
		line += ": " + detail
	}
	_, _ = fmt.Fprintln(p.out, line)
	return true
}

func (p *report) compared(file, difference string) {
	if difference == "" {
		p.add(file, OK, "")
		return
	}
	p.add(file, Differs, difference)
}

// wants reports whether a recording counts.
func (p *report) wants(file string) bool { return p.asked[file] }

// missing reports whether a recording counts and has no result.
func (p *report) missing(file string) bool { return p.asked[file] && !p.has(file) }

func (p *report) has(file string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done[file]
}
