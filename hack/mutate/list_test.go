package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMutationsApply: every line that is to be broken is in the code, once.
func TestMutationsApply(t *testing.T) {
	for i, m := range mutations() {
		text, err := os.ReadFile(filepath.Join("..", "..", m.file))
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(text), m.from), "%d: %s", i+1, m.breaks)
	}
}
