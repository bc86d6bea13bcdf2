package proc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Identity names one process for as long as the machine is up. The zero value names none.
type Identity struct {
	// PID is the process id.
	PID int `json:"pid"`
	// StartTicks is when the process was started, in clock ticks since the machine was, so that a pid that was given
	// to another process since is recognised.
	StartTicks uint64 `json:"startTicks"`
}

// ErrGone says that the process does not exist any more.
var ErrGone = errors.New("the process is gone")

// readStat reads /proc/PID/stat; its state is that of the first thread.
func readStat(pid int) (procfs.ProcStat, error) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return procfs.ProcStat{}, statError(pid, err)
	}
	stat, err := process.Stat()
	if err != nil {
		return stat, statError(pid, err)
	}
	return stat, nil
}

func statError(pid int, err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return ErrGone
	}
	return fmt.Errorf("read the state of process %d: %w", pid, err)
}

// ended reports whether the process has ended and waits for its parent. When only its first thread has ended, the state
// says so too, but the process still holds its files and ports.
func ended(s *procfs.ProcStat) bool { return (s.State == "Z" || s.State == "X") && s.NumThreads <= 1 }

// Identify returns the identity of the process that has the pid now, or ErrGone.
func Identify(pid int) (Identity, error) {
	s, err := readStat(pid)
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: pid, StartTicks: s.Starttime}, nil
}

// Alive reports whether the process still runs. A process that has ended and waits for its parent does not.
func (i Identity) Alive() bool {
	if i.PID <= 0 {
		return false
	}
	s, err := readStat(i.PID)
	return err == nil && s.Starttime == i.StartTicks && !ended(&s)
}

// State returns the scheduler's letter for the process (R, S, D, T for stopped, Z ...), or ErrGone.
func (i Identity) State() (string, error) {
	s, err := readStat(i.PID)
	if err != nil {
		return "", err
	}
	if s.Starttime != i.StartTicks {
		return "", ErrGone
	}
	return s.State, nil
}

// Signal sends the signal to the process, and to no other one that has its pid by now. It returns ErrGone when the
// process has ended.
func (i Identity) Signal(signal syscall.Signal) error {
	if i.PID <= 0 {
		return ErrGone
	}
	// A handle is taken first and the start time compared then: the handle keeps meaning this process.
	process, err := os.FindProcess(i.PID)
	if err != nil {
		return ErrGone
	}
	defer func() { _ = process.Release() }()
	if !i.Alive() {
		return ErrGone
	}
	if err := process.Signal(signal); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return ErrGone
		}
		return fmt.Errorf("send %s to process %d: %w", signal, i.PID, err)
	}
	return nil
}

// SignalGroup sends the signal to the process group that the process leads. It returns ErrGone when no process of the
// group is left.
func (i Identity) SignalGroup(signal syscall.Signal) error {
	if i.PID <= 1 {
		return ErrGone
	}
	// The kernel gives no new process the id of a group that still has members, so while the leader is alive, or has
	// not been waited for, the number is ours.
	if err := syscall.Kill(-i.PID, signal); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return ErrGone
		}
		return fmt.Errorf("send %s to process group %d: %w", signal, i.PID, err)
	}
	return nil
}

// FindByEnv returns the running processes of this user that were started with name=value in their environment,
// leaving out the calling process.
func FindByEnv(name, value string) ([]Identity, error) {
	processes, err := procfs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []Identity
	for _, process := range processes {
		if process.PID == os.Getpid() {
			continue
		}
		id, err := Identify(process.PID)
		if err != nil {
			continue // It ended while we looked.
		}
		environ, err := process.Environ()
		if err != nil || !slices.Contains(environ, name+"="+value) {
			continue // Another user's, or ended.
		}
		if id.Alive() {
			found = append(found, id)
		}
	}
	return found, nil
}

// KillByEnv kills every process that FindByEnv finds, again and again until none is left, and returns how many there
// were. It gives up when the context ends.
func KillByEnv(ctx context.Context, name, value string) (int, error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	killed := map[Identity]bool{}
	for {
		found, err := FindByEnv(name, value)
		if err != nil {
			return len(killed), err
		}
		// A process that is ending no longer shows its environment, but may still hold its ports.
		ending := slices.ContainsFunc(slices.Collect(maps.Keys(killed)), Identity.Alive)
		if len(found) == 0 && !ending {
			return len(killed), nil
		}
		for _, id := range found {
			if err := id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, ErrGone) {
				return len(killed), err
			}
			killed[id] = true
		}
		select {
		case <-ctx.Done():
			return len(killed), fmt.Errorf("%d processes with %s=%s do not end: %w", len(found), name, value, ctx.Err())
		case <-ticker.C:
		}
	}
}

// WaitGone waits until the process has ended, or the context has.
func (i Identity) WaitGone(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for i.Alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", i.PID, ctx.Err())
		case <-ticker.C:
		}
	}
	return nil
}

// BootID names the time since the machine was last started; it differs after every reboot.
func BootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}
