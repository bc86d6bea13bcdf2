package images_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/images"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, image string
		want           bool
	}{
		{"emqx/emqx*", "emqx/emqx:5.8.9", true},
		{"emqx/emqx*", "emqx/emqx-enterprise:5.8.9", true},
		{"emqx/emqx*", "emqx-bg/emqx-bg-operator:1", false},
		{"emqx/emqx*", "emqx/emqx", true},
		{"*", "registry.example/any/thing:1", true},
		{"*/emqx:5.?.9", "emqx/emqx:5.8.9", true},
		{"*/emqx:5.?.9", "a/emqx/emqx:5.8.9", false},
		{"registry.example/*", "registry.example/any/thing:1", true},
		{"busybox", "busybox:1", false},
		{"busybox:[0-9]*", "busybox:1.36/x", true},
		{"busybox:[0-9]*", "busybox:latest", false},
	} {
		require.Equal(t, c.want, images.Match(c.pattern, c.image), "pattern %q, image %q", c.pattern, c.image)
	}
}

func TestValidate(t *testing.T) {
	require.NoError(t, images.Validate(state.ImageRow{Pattern: "a*", Command: "b"}))
	require.Error(t, images.Validate(state.ImageRow{Pattern: "", Command: "b"}))
	require.Error(t, images.Validate(state.ImageRow{Pattern: "a", Command: " "}))
	require.ErrorContains(t, images.Validate(state.ImageRow{Pattern: "[", Command: "b"}), "syntax error")
}

func TestResolve(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin with 'quote")
	require.NoError(t, os.Mkdir(dir, 0o700))
	program := filepath.Join(dir, "cluster")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700))
	rows := append([]state.ImageRow{
		{Pattern: "first:1", Command: "/bin/sh -c 'exit 0'"},
		{Pattern: "gone*", Command: "/no/such/program --flag"},
		{Pattern: "plain*", Command: "'/etc/passwd'"},
		{Pattern: "nopath*", Command: "no-such-program-anywhere"},
		{Pattern: "shell*", Command: "A=b exec_something_only_a_shell_knows"},
		{Pattern: "variable*", Command: "$HOME/nothing"},
		{Pattern: "emqx/emqx:9", Command: "sh"},
	}, images.Builtin(dir)...)
	for _, c := range []struct{ reason, image, pattern, failure string }{
		{reason: "a row of the user's", image: "first:1", pattern: "first:1"},
		{reason: "the first row that fits wins over the built-in", image: "emqx/emqx:9", pattern: "emqx/emqx:9"},
		{reason: "a built-in row, its path quoted", image: "emqx/emqx:5.8.9", pattern: "emqx/emqx*"},
		{reason: "the registry that is meant when none is named", image: "docker.io/emqx/emqx:5.8.9", pattern: "emqx/emqx*"},
		{reason: "no row", image: "unknown:1", failure: `no row for image "unknown:1"`},
		{reason: "its program is not there", image: "gone:1", failure: "/no/such/program (row \"gone*\""},
		{reason: "its program is no program", image: "plain:1", failure: "not an executable file"},
		{reason: "its program is not in the path", image: "nopath:1", failure: "no-such-program-anywhere"},
		{reason: "the operator was not built", image: "emqx-bg/emqx-bg-operator:dev", failure: "emqx-bg-operator"},
		{reason: "what only a shell can tell is left to it", image: "shell:1", pattern: "shell*"},
		{reason: "so are variables", image: "variable:1", pattern: "variable*"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			row, err := images.Resolve(rows, c.image)
			if c.failure != "" {
				require.ErrorContains(t, err, c.failure)
				require.ErrorContains(t, err, c.image)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.pattern, row.Pattern)
		})
	}
}
