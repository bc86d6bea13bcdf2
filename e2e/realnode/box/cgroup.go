package box

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// hierarchiesRoot is where the hierarchies of cgroup version 1 are mounted.
const hierarchiesRoot = "/sys/fs/cgroup"

// hierarchy is one of the hierarchies of cgroup version 1.
type hierarchy struct {
	name    string // Of its directory, and of its controllers when it has any.
	options string // To mount it.
	own     string // The directory of this process's cgroup.
}

// hierarchies lists those with controllers or a name: kubelet wants that of systemd, too.
func hierarchies() ([]hierarchy, error) {
	self, err := procfs.Self()
	if err != nil {
		return nil, fmt.Errorf("find this process: %w", err)
	}
	groups, err := self.Cgroups()
	if err != nil {
		return nil, fmt.Errorf("read the cgroups of this process: %w", err)
	}
	var found []hierarchy
	for _, group := range groups {
		options := strings.Join(group.Controllers, ",")
		if options == "" {
			continue // That is version 2.
		}
		name, named := strings.CutPrefix(options, "name=")
		if named {
			options = "none," + options
		}
		found = append(found, hierarchy{name: name, options: options, own: filepath.Join(hierarchiesRoot, name, group.Path)})
	}
	return found, nil
}

// needed are the controllers that kubelet does not start without, and the freezer.
func needed() []string { return []string{"cpu", "cpuacct", "cpuset", "freezer", "memory", "pids"} }

// Lacking says what this machine lacks to have boxes; nothing when it can.
func Lacking() []string {
	var lacking []string
	if os.Geteuid() != 0 {
		lacking = append(lacking, "root")
	} else if !capable() {
		lacking = append(lacking, "the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN")
	}
	found, err := hierarchies()
	if err != nil {
		return append(lacking, err.Error())
	}
	var there []string
	for _, h := range found {
		if _, err := os.Stat(h.own); err == nil {
			there = append(there, strings.Split(h.name, ",")...)
		}
	}
	for _, controller := range needed() {
		if !slices.Contains(there, controller) {
			lacking = append(lacking, "the controller "+controller+" of cgroup version 1")
		}
	}
	return lacking
}

// capable reports whether this process may make namespaces, mounts and interfaces.
func capable() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	for _, capability := range []int{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN} {
		if data[capability/32].Effective&(1<<(capability%32)) == 0 {
			return false
		}
	}
	return true
}

// join makes the cgroup in every hierarchy, below the one that this process is in, and enters it.
func join(name string) error {
	found, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range found {
		path := filepath.Join(h.own, name)
		if err := os.MkdirAll(path, 0o755); err != nil { //nolint:gosec // as cgroups are
			return fmt.Errorf("make the cgroup %s: %w", path, err)
		}
		if err := inherit(path); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte("0"), 0o600); err != nil {
			return fmt.Errorf("enter the cgroup %s: %w", path, err)
		}
	}
	return nil
}

// inherit gives a new cpuset what the one above has: it begins with no processor, and nothing may enter it.
func inherit(path string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(path, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // It is no cpuset.
		}
		if err != nil {
			return fmt.Errorf("read a cpuset: %w", err)
		}
		if strings.TrimSpace(string(value)) != "" {
			continue
		}
		if value, err = os.ReadFile(filepath.Join(filepath.Dir(path), name)); err != nil {
			return fmt.Errorf("read a cpuset: %w", err)
		}
		if err := os.WriteFile(filepath.Join(path, name), value, 0o600); err != nil { //nolint:gosec // a cgroup of our own
			return fmt.Errorf("write a cpuset: %w", err)
		}
	}
	return nil
}

// Cgroups are the directories of the cgroup, below the one that this process is in, that exist.
func Cgroups(name string) ([]string, error) {
	found, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, h := range found {
		matches, err := filepath.Glob(filepath.Join(h.own, name))
		if err != nil {
			return nil, fmt.Errorf("look for the cgroup %s: %w", name, err)
		}
		paths = append(paths, matches...)
	}
	return paths, nil
}

// RemoveCgroup thaws the cgroup, kills all processes in it and removes it, with all below it, until it is gone or ctx ends.
func RemoveCgroup(ctx context.Context, name string) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		paths, err := Cgroups(name)
		if err != nil {
			return err
		}
		var problems []error
		for _, path := range paths {
			problems = append(problems, remove(path))
		}
		err = errors.Join(problems...)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove the cgroup %s: %w: %w", name, context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

// remove removes a cgroup of one hierarchy, or fails.
func remove(root string) error {
	var directories []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if entry.IsDir() {
			directories = append(directories, path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look into a cgroup: %w", err)
	}
	// A frozen process does not die. One above that is frozen keeps those below frozen.
	for _, path := range directories {
		state := filepath.Join(path, freezerState)
		if _, err := os.Stat(state); err == nil {
			if err := os.WriteFile(state, []byte(thawed), 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("thaw a cgroup: %w", err)
			}
		}
	}
	for _, path := range slices.Backward(directories) {
		if err := kill(path); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a cgroup: %w", err)
		}
	}
	return nil
}

// kill kills the processes in a cgroup.
func kill(path string) error {
	content, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil
		}
		return fmt.Errorf("read the processes of a cgroup: %w", err)
	}
	for _, field := range strings.Fields(string(content)) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid <= 1 || pid == os.Getpid() {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d of a cgroup: %w", pid, err)
		}
	}
	return nil
}

const (
	freezerState = "freezer.state"
	frozen       = "FROZEN"
	thawed       = "THAWED"
)

// Freeze stops every process of the cgroup where it is, until Thaw.
func Freeze(ctx context.Context, name string) error { return freeze(ctx, name, frozen) }

// Thaw lets the processes of the cgroup go on.
func Thaw(ctx context.Context, name string) error { return freeze(ctx, name, thawed) }

func freeze(ctx context.Context, name, wanted string) error {
	path := filepath.Join(hierarchiesRoot, "freezer", name, freezerState)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		// A process that starts others meanwhile may need it to be said again.
		if err := os.WriteFile(path, []byte(wanted), 0o600); err != nil {
			return fmt.Errorf("have the cgroup %s %s: %w", name, wanted, err)
		}
		state, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read the state of the cgroup %s: %w", name, err)
		}
		if strings.TrimSpace(string(state)) == wanted {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the cgroup %s to be %s: %w", name, wanted, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
