// Command docs writes the parts of the documentation that follow from the code: docs reference prints the fields of
// the EMQX resource, docs metrics what the operator serves on /metrics. `make generate` runs both.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

// run prints what is asked for. It is called in the root of the repository.
func run(args []string, out io.Writer) error {
	pages := map[string]func() (string, error){"reference": reference, "metrics": metricsPage}
	if len(args) != 1 || pages[args[0]] == nil {
		return errors.New("usage: docs reference|metrics")
	}
	page, err := pages[args[0]]()
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, page)
	return err
}

// table prints a Markdown table. A bar in a cell would end it.
func table(b *strings.Builder, rows [][]string) {
	for i, row := range rows {
		for _, cell := range row {
			fmt.Fprintf(b, "| %s ", strings.ReplaceAll(strings.Join(strings.Fields(cell), " "), "|", `\|`))
		}
		b.WriteString("|\n")
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
	b.WriteString("\n")
}
