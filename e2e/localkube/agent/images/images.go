// Package images decides which command stands in for a container image.
package images

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// Builtin are the rows that every cluster has after the user's own. binDir holds the programs of this project.
func Builtin(binDir string) []state.ImageRow {
	quoted := func(program string) string {
		return "'" + strings.ReplaceAll(filepath.Join(binDir, program), "'", `'\''`) + "'"
	}
	return []state.ImageRow{
		{Pattern: "emqx/emqx*", Command: quoted("cluster") + " emqx"},
		{Pattern: "emqx-bg/emqx-bg-operator*", Command: quoted("emqx-bg-operator") + " --bind-address=$LOCAL_POD_ADDRESS"},
	}
}

// Validate says what is wrong with a row, or nil.
func Validate(row state.ImageRow) error {
	if row.Pattern == "" || strings.TrimSpace(row.Command) == "" {
		return errors.New("an image row is PATTERN=COMMAND and neither may be empty")
	}
	if _, err := path.Match(row.Pattern, ""); err != nil {
		return fmt.Errorf("read image pattern %q: %w", row.Pattern, err)
	}
	return nil
}

// Match reports whether the pattern fits the image: as path.Match, and a `*` at the end matches slashes too.
func Match(pattern, image string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	if !open {
		matched, err := path.Match(pattern, image)
		return err == nil && matched
	}
	// The part before the final star must match some beginning of the image.
	for end := 0; end <= len(image); end++ {
		if matched, err := path.Match(prefix, image[:end]); err == nil && matched {
			return true
		}
	}
	return false
}

// Resolve finds the row for the image. The error is a sentence for the user: there is no row, or its program is not
// there.
func Resolve(rows []state.ImageRow, image string) (state.ImageRow, error) {
	for _, row := range rows {
		if Match(row.Pattern, strings.TrimPrefix(strings.TrimPrefix(image, "docker.io/"), "library/")) || Match(row.Pattern, image) {
			return row, checkProgram(row, image)
		}
	}
	return state.ImageRow{}, fmt.Errorf(
		"the local cluster's image table has no row for image %q; add one with `cluster up --image 'PATTERN=COMMAND'`", image)
}

// checkProgram looks for the command's program, unless only a shell could tell which it is.
func checkProgram(row state.ImageRow, image string) error {
	program := firstWord(row.Command)
	if program == "" {
		return nil
	}
	var err error
	if strings.Contains(program, "/") {
		err = executable(program)
	} else {
		_, err = exec.LookPath(program)
	}
	if err != nil {
		return fmt.Errorf("the local cluster runs image %q as %s (row %q of its image table), which cannot be run: %w",
			image, program, row.Pattern, err)
	}
	return nil
}

func executable(program string) error {
	info, err := os.Stat(program)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not an executable file", program)
	}
	return nil
}

// firstWord returns the program of a command, or nothing when only a shell could tell.
func firstWord(command string) string {
	command = strings.TrimSpace(command)
	if rest, quoted := strings.CutPrefix(command, "'"); quoted {
		return quotedWord(rest)
	}
	word, _, _ := strings.Cut(command, " ")
	if strings.ContainsFunc(word, special) {
		return ""
	}
	return word
}

// quotedWord returns the word whose opening quote comes just before rest, as Builtin quotes it.
func quotedWord(rest string) string {
	var word strings.Builder
	for {
		part, after, closed := strings.Cut(rest, "'")
		if !closed {
			return ""
		}
		word.WriteString(part)
		if rest, closed = strings.CutPrefix(after, `\''`); closed {
			word.WriteByte('\'') // a quote within the word
			continue
		}
		if after != "" && !strings.HasPrefix(after, " ") {
			return ""
		}
		return word.String()
	}
}

// special reports whether the character may mean something to a shell.
func special(r rune) bool {
	plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_./+:@%-", r)
	return !plain
}
