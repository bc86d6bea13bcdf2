package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
)

// documentedCommands are the commands of the README, in its order, and before those that take it all away those of other pages.
func documentedCommands(t *testing.T) []string {
	t.Helper()
	commands := commandsOf(t, "README.md")
	end := slices.IndexFunc(commands, func(command string) bool { return strings.HasPrefix(command, "kubectl delete") })
	require.Positive(t, end)
	var pages []string
	for _, page := range []string{"durable-storage", "versions", "volumes", "keys", "disruptions"} {
		pages = append(pages, commandsOf(t, "docs/"+page+".md")...)
	}
	return slices.Insert(commands, end, pages...)
}

// commandsOf are the commands of a page: the lines that are indented by four spaces at least and begin with the name of a program.
func commandsOf(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	require.NoError(t, err)
	var commands []string
	for line := range strings.Lines(string(text)) {
		command, indented := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		command = strings.TrimLeft(command, " ") // In a list they are indented more.
		program, _, _ := strings.Cut(command, " ")
		if indented && (program == "kubectl" || program == "make" || program == "skopeo") {
			command, _, _ = strings.Cut(command, " #")
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	return commands
}

// TestReadme runs the commands of the README and of other pages in their order, as a stranger would paste them, in a directory with the
// manifests in which only the licence key was put in, and the CA of a user.
func TestReadme(t *testing.T) {
	c := start(t)
	work := c.desk()
	ca, err := os.ReadFile(c.dir.PKI("ca.crt"))
	require.NoError(t, err)
	require.NoError(t, writeFile(filepath.Join(work, "ca.crt"), string(ca)))

	ran := 0
	for _, command := range documentedCommands(t) {
		t.Run(command, func(t *testing.T) {
			switch {
			case strings.HasPrefix(command, "skopeo"):
				t.Skip("SKIPPED: needs a registry")
			case strings.HasPrefix(command, "make"):
				// What it would do; to do it from within the tests would never end.
				output, err := exec.CommandContext(t.Context(), "sh", "-c", "cd ../.. && "+strings.Replace(command, "make", "make -n", 1)).CombinedOutput()
				require.NoError(t, err, string(output))
				return
			}
			ran++
			output, err := paste(t, work, command)
			t.Logf("%s", output)
			require.NoError(t, err)
		})
	}
	require.Greater(t, ran, 10, "the README has fewer commands than it should, or they are not found")
}

// desk is a directory with the manifests, in which only the licence key was put in, and kubectl on the path as a person has it, with a
// cluster to talk to.
func (c *installed) desk() string {
	c.t.Helper()
	work, t := c.t.TempDir(), c.t
	require.NoError(t, os.CopyFS(filepath.Join(work, "manifests"), os.DirFS("../../manifests")))
	require.NoError(t, writeFile(filepath.Join(work, "manifests", "samples", "emqx.yaml"), sample(t)))
	shim := fmt.Sprintf("#!/bin/sh\nexec %s kubectl --dir %s -- \"$@\"\n", c.binary, c.dir)
	require.NoError(t, os.WriteFile(filepath.Join(work, "kubectl"), []byte(shim), 0o700))
	t.Setenv("PATH", work+":"+os.Getenv("PATH"))
	return work
}

// paste runs a line in a shell and returns what it printed. A command that never ends by itself is ended when it has
// printed something.
func paste(t *testing.T, directory, line string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), localkubetest.Patience)
	defer cancel()
	command := exec.CommandContext(ctx, "sh", "-c", line)
	command.Dir = directory
	command.WaitDelay = time.Second
	if !slices.Contains(strings.Fields(line), "-w") {
		output, err := command.CombinedOutput()
		return string(output), err
	}
	watched := &watched{printed: cancel}
	var failure bytes.Buffer
	command.Stdout, command.Stderr = watched, &failure
	err := command.Run()
	if watched.text.Len() > 0 {
		return watched.text.String(), nil
	}
	return failure.String(), fmt.Errorf("it printed nothing: %w", err)
}

// watched is the output of a command that never ends by itself.
type watched struct {
	text    bytes.Buffer
	printed func()
}

func (w *watched) Write(p []byte) (int, error) {
	defer w.printed()
	return w.text.Write(p)
}

// TestSingleNamespace installs the variant with a Role, which works in its own namespace.
func TestSingleNamespace(t *testing.T) {
	c := start(t)
	c.must("", "apply", "-k", "../../manifests/single-namespace")
	c.must("", "-n", "emqx", "rollout", "status", "deployment/emqx-bg-operator", "--timeout=120s")
	quick := sample(t, "initialDelaySeconds: 10", "initialDelaySeconds: 1", "waitTakeover: 10", "waitTakeover: 1")
	c.must(quick, "-n", "emqx", "apply", "-f", "-")
	c.must("", "-n", "emqx", "wait", "--for=condition=Ready", "emqx/"+name, "--timeout=120s")
	c.must("", "-n", "emqx", "patch", "emqx", name, "--type=merge", "-p", `{"spec":{"imagePullPolicy":"Never"}}`)
	c.must("", "-n", "emqx", "wait", "--for=condition=Progressing", "emqx/"+name, "--timeout=60s")
	c.must(quick, "apply", "-f", "-")
	c.must("", "-n", "emqx", "wait", "--for=condition=Ready", "emqx/"+name, "--timeout=120s")
	require.Never(t, func() bool { return c.get().Status.Phase != "" }, 5*time.Second, time.Second,
		"a resource in another namespace is none of its business")
}
