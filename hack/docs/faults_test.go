package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFaultsHaveTheirTests: every test that docs/faults.md names is in the code, with the case of its table.
func TestFaultsHaveTheirTests(t *testing.T) {
	page, err := os.ReadFile("../../docs/faults.md")
	require.NoError(t, err)
	sources := map[string]string{}
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		sources[path] = string(text)
		return err
	}))
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)(?:: ([^`]+))?`").FindAllStringSubmatch(string(page), -1)
	require.NotEmpty(t, named)
	for _, name := range named {
		test, row := name[1], name[2]
		found := false
		for _, source := range sources {
			if i := strings.Index(source, "func "+test+"("); i >= 0 {
				body, _, _ := strings.Cut(source[i:], "\n}\n")
				found = found || row == "" || strings.Contains(body, `"`+row+`"`)
			}
		}
		if !found {
			t.Errorf("docs/faults.md names %s, which no test has", strings.Trim(name[0], "`"))
		}
	}
}
