package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
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

// stat is what is read of /proc/PID/stat.
type stat struct {
	state      byte // Of its first thread.
	group      int
	threads    int
	startTicks uint64
}

func readStat(pid int) (stat, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	raw, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return stat{}, ErrGone
		}
		return stat{}, fmt.Errorf("reading %s: %w", path, err)
	}
	// The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
	end := bytes.LastIndexByte(raw, ')')
	if end < 0 {
		return stat{}, fmt.Errorf("reading %s: no program name in it", path)
	}
	fields := strings.Fields(string(raw[end+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("reading %s: %d fields after the name, expected 20 or more", path, len(fields))
	}
	group, err := strconv.Atoi(fields[2])
	if err != nil {
		return stat{}, fmt.Errorf("reading %s: process group: %w", path, err)
	}
	threads, err := strconv.Atoi(fields[17])
	if err != nil {
		return stat{}, fmt.Errorf("reading %s: number of threads: %w", path, err)
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("reading %s: start time: %w", path, err)
	}
	return stat{state: fields[0][0], group: group, threads: threads, startTicks: ticks}, nil
}

// ended reports whether the process has ended and waits for its parent. While other threads than the first go on, it
// still has its files and ports, although its state says so already.
func (s stat) ended() bool { return (s.state == 'Z' || s.state == 'X') && s.threads <= 1 }

// Identify returns the identity of the process that has the pid now, or ErrGone.
func Identify(pid int) (Identity, error) {
	s, err := readStat(pid)
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: pid, StartTicks: s.startTicks}, nil
}

// Alive reports whether the process still runs. A process that has ended and waits for its parent does not.
func (i Identity) Alive() bool {
	if i.PID <= 0 {
		return false
	}
	s, err := readStat(i.PID)
	return err == nil && s.startTicks == i.StartTicks && !s.ended()
}

// State returns the scheduler's letter for the process (R, S, D, T for stopped, Z ...), or ErrGone.
func (i Identity) State() (string, error) {
	s, err := readStat(i.PID)
	if err != nil {
		return "", err
	}
	if s.startTicks != i.StartTicks {
		return "", ErrGone
	}
	return string(s.state), nil
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
		return fmt.Errorf("sending %s to process %d: %w", signal, i.PID, err)
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
		return fmt.Errorf("sending %s to process group %d: %w", signal, i.PID, err)
	}
	return nil
}

// FindByEnv returns the running processes of this user that were started with name=value in their environment,
// leaving out the calling process.
func FindByEnv(name, value string) ([]Identity, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	want := []byte(name + "=" + value)
	var found []Identity
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		id, err := Identify(pid)
		if err != nil {
			continue // it ended while we looked
		}
		environ, err := os.ReadFile("/proc/" + entry.Name() + "/environ")
		if err != nil || !hasVariable(environ, want) {
			continue // another user's, or ended
		}
		if id.Alive() {
			found = append(found, id)
		}
	}
	return found, nil
}

func hasVariable(environ, want []byte) bool {
	for variable := range bytes.SplitSeq(environ, []byte{0}) {
		if bytes.Equal(variable, want) {
			return true
		}
	}
	return false
}

// KillByEnv kills every process that FindByEnv finds and those they start meanwhile, and returns how many there were
// once none is left. It gives up when the context ends.
func KillByEnv(ctx context.Context, name, value string) (int, error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	killed := map[Identity]bool{}
	for {
		found, err := FindByEnv(name, value)
		if err != nil {
			return len(killed), err
		}
		// One that is ending shows its environment no more, and may have its ports still.
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
		return "", fmt.Errorf("reading the boot id: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}
