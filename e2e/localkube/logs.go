package localkube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/containerlog"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/controlplane"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// LogOptions select what Logs prints.
type LogOptions struct {
	// Follow goes on until the context ends.
	Follow bool
	// Previous is the run of a container before its last.
	Previous bool
	// Container is one container of a pod; empty for all of them, one after the other.
	Container string
}

// Logs writes the log of a component, or of a pod named NAMESPACE/POD, from the files in the cluster's directory, so
// that logs of deleted pods and stopped clusters can be read. Of several pods that had the name it takes the last.
func Logs(ctx context.Context, dir state.Dir, what string, options LogOptions, out io.Writer) error {
	namespace, pod, isPod := strings.Cut(what, "/")
	if !isPod {
		if !slices.Contains(controlplane.Names(), what) {
			return fmt.Errorf("no component is called %q; there are %s, and pods as NAMESPACE/POD",
				what, strings.Join(controlplane.Names(), ", "))
		}
		return copyFile(ctx, dir.ComponentLog(what), options.Follow, out)
	}
	podDir, err := lastPodDir(dir, namespace, pod)
	if err != nil {
		return err
	}
	containers, err := containersIn(podDir, options.Container)
	if err != nil {
		return fmt.Errorf("find the logs of pod %s/%s: %w", namespace, pod, err)
	}
	for _, container := range containers {
		if err := containerLog(ctx, podDir, container, options, out); err != nil {
			return err
		}
	}
	return nil
}

// lastPodDir finds the log directory of the last pod that had the name.
func lastPodDir(dir state.Dir, namespace, pod string) (string, error) {
	// Names have no characters that mean something to Glob, and no underscore.
	matches, err := filepath.Glob(filepath.Join(dir.PodLogs(), namespace+"_"+pod+"_*"))
	if err != nil {
		return "", fmt.Errorf("%q is not NAMESPACE/POD", namespace+"/"+pod)
	}
	var last string
	var lastTime time.Time
	for _, match := range matches {
		info, err := os.Stat(match)
		if err == nil && !info.ModTime().Before(lastTime) {
			last, lastTime = match, info.ModTime()
		}
	}
	if last == "" {
		return "", fmt.Errorf("there are no logs of a pod %s/%s in %s", namespace, pod, dir.PodLogs())
	}
	return last, nil
}

func containersIn(podDir, wanted string) ([]string, error) {
	entries, err := os.ReadDir(podDir)
	if err != nil {
		return nil, fmt.Errorf("list its logs: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if wanted == "" || entry.Name() == wanted {
			names = append(names, entry.Name())
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no container %q has a log", wanted)
	}
	return names, nil
}

func containerLog(ctx context.Context, podDir, container string, options LogOptions, out io.Writer) error {
	entries, err := os.ReadDir(filepath.Join(podDir, container))
	if err != nil {
		return fmt.Errorf("list the logs of container %s: %w", container, err)
	}
	start := -1
	for _, entry := range entries {
		if n, err := strconv.Atoi(strings.TrimSuffix(entry.Name(), ".log")); err == nil {
			start = max(start, n)
		}
	}
	if options.Previous {
		start--
	}
	path := containerlog.Path(podDir, container, int32(start))
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("container %s has no log of that run", container)
	}
	err = containerlog.Read(ctx, path, containerlog.Options{
		Follow: options.Follow, Running: func() bool { return ctx.Err() == nil },
	}, out)
	if err != nil && options.Follow && ctx.Err() != nil {
		err = nil // the reader has had enough
	}
	return err
}

// followInterval is how often a component's log is looked at while following.
const followInterval = 200 * time.Millisecond

func copyFile(ctx context.Context, path string, follow bool, out io.Writer) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer func() { _ = file.Close() }()
	ticker := time.NewTicker(followInterval)
	defer ticker.Stop()
	for {
		if _, err := io.Copy(out, file); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
