package hocon

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Stage is the part of reading in which a text is refused. EMQX names the same three.
type Stage string

// The stages, in the order in which EMQX goes through them: a text that fails at two is refused by the first.
const (
	// StageScan is the cutting of the text into words and signs.
	StageScan Stage = "scan"
	// StageParse is the grammar.
	StageParse Stage = "parse"
	// StageLoad is what a text means: substitutions, concatenations, indices of arrays.
	StageLoad Stage = "load"
	// StageLimit is a bound of this reader, which EMQX does not have.
	StageLimit Stage = "limit"
)

// Error says where a text is no valid configuration. It never quotes values, which may be secrets.
type Error struct {
	// Stage is the part of reading that refuses the text.
	Stage Stage
	// Line and Column count from 1; Column counts characters, not bytes. The line is always one of the text.
	Line, Column int
	// Reason says what is wrong there, for a person to read.
	Reason string
}

// Error gives one line: the place and the reason.
func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Reason)
}

// errorAt makes the Error for a byte offset. Line and column are counted only here, so reading stays linear.
func errorAt(text string, offset int, stage Stage, reason string) *Error {
	before := text[:min(offset, len(text))]
	lineStart := strings.LastIndexByte(before, '\n') + 1
	return &Error{
		Stage:  stage,
		Line:   strings.Count(before, "\n") + 1,
		Column: utf8.RuneCountInString(before[lineStart:]) + 1,
		Reason: reason,
	}
}
