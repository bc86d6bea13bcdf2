package box

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// reports is the file to which both processes of a box say how far they are.
func reports() *os.File { return os.NewFile(3, "reports") }

func decode(encoded string) (Spec, error) {
	var spec Spec
	if err := json.Unmarshal([]byte(encoded), &spec); err != nil {
		return spec, fmt.Errorf("decode a box: %w", err)
	}
	return spec, nil
}

// Join is JoinCommand: it enters the cgroup, starts the first process in new namespaces and returns its exit code.
func Join(encoded string) (int, error) {
	spec, err := decode(encoded)
	if err != nil {
		return -1, err
	}
	if err := join(spec.Cgroup); err != nil {
		return -1, err
	}
	runtime.LockOSThread() // As in Box.run.
	out := reports()
	first := exec.Command(spec.Helper, InitCommand, encoded) //nolint:gosec // our own program
	first.Stdin, first.Stdout, first.Stderr, first.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{out}
	first.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWCGROUP,
	}
	if err := first.Start(); err != nil {
		return -1, fmt.Errorf("start the first process of the box %s: %w", spec.Name, err)
	}
	passed := make(chan os.Signal, 1)
	signal.Notify(passed, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range passed {
			_ = first.Process.Signal(s) // It may have ended already.
		}
	}()
	if err := json.NewEncoder(out).Encode(report{PID: first.Process.Pid}); err != nil {
		return -1, errors.Join(fmt.Errorf("say that the box %s was made: %w", spec.Name, err), first.Process.Kill())
	}
	_ = out.Close() // Whoever reads it has gone, if that fails.
	return code(first.Wait())
}

// code is the exit code of a process that was waited for.
func code(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	default:
		return -1, fmt.Errorf("wait for the first process of a box: %w", err)
	}
}

// Init is InitCommand, the first process of a box: it makes the mounts, starts the program, waits for it and collects all
// others. It returns the program's exit code.
func Init(encoded string) (int, error) {
	spec, err := decode(encoded)
	if err != nil {
		return -1, err
	}
	if os.Getpid() != 1 {
		return -1, errors.New("only the first process of a box runs this")
	}
	if err := unix.Sethostname([]byte(spec.Name)); err != nil {
		return -1, fmt.Errorf("name the box %s: %w", spec.Name, err)
	}
	if err := mounts(&spec); err != nil {
		return -1, err
	}
	out := reports()
	syscall.CloseOnExec(int(out.Fd()))
	program := exec.Command(spec.Command[0], spec.Command[1:]...) //nolint:gosec // what the caller wants
	program.Stdin, program.Stdout, program.Stderr = os.Stdin, os.Stdout, os.Stderr
	passed := make(chan os.Signal, 1)
	signal.Notify(passed, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	if err := program.Start(); err != nil {
		return -1, fmt.Errorf("start the program of the box %s: %w", spec.Name, err)
	}
	if err := json.NewEncoder(out).Encode(report{Running: true}); err != nil {
		return -1, fmt.Errorf("say that the program of the box %s was started: %w", spec.Name, err)
	}
	_ = out.Close() // Whoever reads it has gone, if that fails.
	go func() {
		for s := range passed {
			_ = program.Process.Signal(s) // It may have ended already.
		}
	}()
	return collect(program.Process.Pid)
}

// collect waits for every process that has this one for a parent, until the program has ended.
func collect(program int) (int, error) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return -1, fmt.Errorf("wait for the program of a box: %w", err)
		case pid == program && status.Exited():
			return status.ExitStatus(), nil
		case pid == program && status.Signaled():
			return 128 + int(status.Signal()), nil
		}
	}
}

// mount is one mount of a box.
type mount struct {
	source, target, kind, options string
	flags                         uintptr
}

func (m mount) do() error {
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

// mounts gives the box a view of its own processes, network and cgroups, and its directory.
func mounts(spec *Spec) error {
	plan := []mount{
		{target: "/", flags: unix.MS_REC | unix.MS_PRIVATE},
		{source: "proc", target: "/proc", kind: "proc"},
		{source: "sysfs", target: "/sys", kind: "sysfs"},
		{source: "cgroups", target: hierarchiesRoot, kind: "tmpfs", options: "mode=755"},
	}
	if spec.Dir != "" {
		plan = append(plan, mount{source: spec.Dir, target: Home, flags: unix.MS_BIND})
	}
	for _, m := range plan {
		if err := m.do(); err != nil {
			return err
		}
	}
	if err := mountCgroups(); err != nil {
		return err
	}
	if spec.Node == "" {
		return nil
	}
	return nodeMounts(spec)
}

func mountCgroups() error {
	found, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range found {
		target := filepath.Join(hierarchiesRoot, h.name)
		if err := os.Mkdir(target, 0o755); err != nil { //nolint:gosec // as cgroups are
			return fmt.Errorf("make a directory for cgroups: %w", err)
		}
		if err := (mount{source: "cgroup", target: target, kind: "cgroup", options: h.options}).do(); err != nil {
			return err
		}
		// Where controllers share a hierarchy, each is also found by its own name.
		for _, controller := range strings.Split(h.name, ",") {
			if controller == h.name {
				continue
			}
			if err := os.Symlink(h.name, filepath.Join(hierarchiesRoot, controller)); err != nil {
				return fmt.Errorf("name a controller of cgroups: %w", err)
			}
		}
	}
	return nil
}

// sysctls are those that kubelet wants to have these values, and ends when it cannot set them. They are the machine's, and
// not the node's: it is shown files instead.
func sysctls() map[string]string {
	return map[string]string{"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
}

// nodeMounts has what a node writes go to its own directory, and nothing of it to the machine.
func nodeMounts(spec *Spec) error {
	own := filepath.Join(Home, spec.Node)
	for _, name := range []string{"run", "var", "tmp", "sysctls"} {
		if err := os.MkdirAll(filepath.Join(own, name), 0o755); err != nil { //nolint:gosec // as they are
			return fmt.Errorf("make the directories of node %s: %w", spec.Name, err)
		}
	}
	// These are programs' usual way to /run.
	if err := os.Symlink("/run", filepath.Join(own, "var", "run")); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the directories of node %s: %w", spec.Name, err)
	}
	plan := []mount{
		{target: "/", flags: unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		{source: "run", target: "/run", kind: "tmpfs", options: "mode=755"},
		{source: filepath.Join(own, "var"), target: "/var", flags: unix.MS_BIND},
		{source: filepath.Join(own, "tmp"), target: "/tmp", flags: unix.MS_BIND},
		{source: "/proc/sys", target: "/proc/sys", flags: unix.MS_BIND},
		{target: "/proc/sys", flags: unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		{source: "/proc/sys/net", target: "/proc/sys/net", flags: unix.MS_BIND},
		{target: "/proc/sys/net", flags: unix.MS_BIND | unix.MS_REMOUNT},
	}
	for name, value := range sysctls() {
		path := filepath.Join(own, "sysctls", strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
			return fmt.Errorf("write a sysctl of node %s: %w", spec.Name, err)
		}
		plan = append(plan, mount{source: path, target: "/proc/sys/" + name, flags: unix.MS_BIND})
	}
	// Kubelet's mounts are to reach containers, within the box.
	plan = append(plan, mount{target: "/", flags: unix.MS_REC | unix.MS_SHARED})
	for _, m := range plan {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}
