package realnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode/box"
)

// KeepCommand is the hidden command of the program `cluster` that runs the keeper.
const KeepCommand = "nodes-keep"

const (
	// cgroupPrefix begins the name of every cluster's cgroup; the identity of the process that entered follows.
	cgroupPrefix = "emqx-bg-nodes-"
	// endLimit bounds the end of a program that was asked to end, cleanLimit the removal of what is left.
	endLimit, cleanLimit = 20 * time.Second, 30 * time.Second
)

// Outside says what to run in a box.
type Outside struct {
	// Helper is the program `cluster`.
	Helper string
	// Dir is the cluster's directory, which is made. What is in it is removed at the end, but for the logs.
	Dir string
	// Command is the program with its arguments.
	Command []string
	// Streams are its standard streams and environment.
	Streams box.Streams
}

// Enter runs a program in a new box, and returns its exit code when everything is gone. A context that ends asks the program to
// end, and ends it.
func Enter(ctx context.Context, o Outside) (int, error) {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return -1, fmt.Errorf("find this process: %w", err)
	}
	dir, err := state.OpenDir(o.Dir)
	if err != nil {
		return -1, err
	}
	if strings.HasPrefix(o.Helper, box.Home+"/") {
		return -1, fmt.Errorf("the box hides what lies in %s, such as %s", box.Home, o.Helper)
	}
	if err := os.MkdirAll(dir.Path("logs"), 0o755); err != nil { //nolint:gosec // pods' users look for volumes below
		return -1, fmt.Errorf("make the cluster's directory: %w", err)
	}
	if err := sweep(ctx); err != nil {
		return -1, err
	}
	cgroup := fmt.Sprintf("%s%d-%d", cgroupPrefix, self.PID, self.StartTicks)
	keeper, release, err := keep(o.Helper, dir, cgroup)
	if err != nil {
		return -1, err
	}
	exit, err := o.run(ctx, dir, cgroup)
	release()
	if kept := keeper.Wait(); kept != nil {
		// It says why in its log; or somebody has killed it.
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
		defer cancel()
		err = errors.Join(err, clean(cleaning, dir, cgroup))
	}
	return exit, err
}

// run runs the box until its program ends.
func (o *Outside) run(ctx context.Context, dir state.Dir, cgroup string) (int, error) {
	b, err := box.Start(ctx, box.Spec{Helper: o.Helper, Name: controlName, Cgroup: cgroup, Dir: string(dir), Command: o.Command}, o.Streams)
	if err != nil {
		return -1, err
	}
	select {
	case <-b.Ended():
	case <-ctx.Done():
		_ = b.Signal(syscall.SIGTERM) // It may have ended already.
		select {
		case <-b.Ended():
		case <-time.After(endLimit):
			b.Kill()
		}
	}
	return b.Wait()
}

// keep starts the keeper. It cleans when release was called or this process has ended.
func keep(helper string, dir state.Dir, cgroup string) (keeper *exec.Cmd, release func(), err error) {
	log, err := os.OpenFile(dir.ComponentLog("keeper"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the log of the keeper: %w", err)
	}
	defer func() { _ = log.Close() }() // The program that was started has it, too.
	watched, held, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("start the keeper: %w", err)
	}
	defer func() { _ = watched.Close() }()                          // The program that was started has it, too.
	keeper = exec.Command(helper, KeepCommand, string(dir), cgroup) //nolint:gosec // our own program
	keeper.Stdin, keeper.Stdout, keeper.Stderr = watched, log, log
	// It is not to end with the terminal.
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := keeper.Start(); err != nil {
		_ = held.Close() // Nobody was started to watch it.
		return nil, nil, fmt.Errorf("start the keeper: %w", err)
	}
	return keeper, func() { _ = held.Close() }, nil // That it closes is what is watched.
}

// Keep is KeepCommand: it waits until its standard input ends, as it does with the process that has entered, and removes what
// the kernel leaves of the cluster.
func Keep(ctx context.Context, dir, cgroup string) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return fmt.Errorf("wait for the end of the cluster: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cleanLimit)
	defer cancel()
	return clean(ctx, state.Dir(dir), cgroup)
}

// clean removes cgroups, and of the directory all but logs. The cgroups' processes end with it.
func clean(ctx context.Context, dir state.Dir, cgroup string) error {
	if err := box.RemoveCgroup(ctx, cgroup); err != nil {
		return err
	}
	entries, err := os.ReadDir(string(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean the cluster's directory: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() == "logs" || strings.HasPrefix(entry.Name(), "audit") {
			continue
		}
		if err := os.RemoveAll(dir.Path(entry.Name())); err != nil {
			return fmt.Errorf("clean the cluster's directory: %w", err)
		}
	}
	return nil
}

// sweep removes cgroups of clusters whose process and keeper were both killed.
func sweep(ctx context.Context) error {
	paths, err := box.Cgroups(cgroupPrefix + "*")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cleanLimit)
	defer cancel()
	for _, path := range paths {
		name := filepath.Base(path)
		pid, ticks, _ := strings.Cut(strings.TrimPrefix(name, cgroupPrefix), "-")
		id := proc.Identity{}
		if id.PID, err = strconv.Atoi(pid); err != nil {
			continue
		}
		if id.StartTicks, err = strconv.ParseUint(ticks, 10, 64); err != nil || id.Alive() {
			continue
		}
		if err := box.RemoveCgroup(ctx, name); err != nil {
			return fmt.Errorf("remove what a cluster has left: %w", err)
		}
	}
	return nil
}
