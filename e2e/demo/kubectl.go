package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const kubectlTimeout = 3 * time.Minute

// kubectl runs kubectl as a person would and returns what it printed.
func (r *run) kubectl(ctx context.Context, stdin string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, kubectlTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, r.target.State.KubeBinary, append([]string{"kubectl"}, arguments...)...) //nolint:gosec // the program of this cluster
	command.Env = append(os.Environ(), "KUBECONFIG="+r.target.Dir.AdminKubeconfig())
	command.Stdin = strings.NewReader(stdin)
	command.WaitDelay = time.Second
	var out, problem bytes.Buffer
	command.Stdout, command.Stderr = &out, &problem
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}
