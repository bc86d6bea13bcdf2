package realnode_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
)

// traces is what a cluster could leave on the machine: everything by a name, with its value where it has one.
type traces map[string]string

// look notes all that a cluster could leave, but for processes.
func look(t *testing.T) traces {
	t.Helper()
	seen := traces{}
	seen.mounts(t)
	seen.cgroups(t)
	seen.sysctls(t)
	for _, directory := range []string{
		"/sys/class/net", "/run", "/run/netns", "/var/lib", "/var/lib/cni", "/var/lib/kubelet", "/var/log", "/var/log/pods", "/var/log/containers",
		"/etc/cni", "/opt", "/mnt", "/dev", "/dev/shm", "/dev/mqueue",
	} {
		entries, err := os.ReadDir(directory)
		if os.IsNotExist(err) {
			continue
		}
		require.NoError(t, err)
		for _, entry := range entries {
			seen["file "+filepath.Join(directory, entry.Name())] = ""
		}
	}
	ruleset, err := exec.CommandContext(t.Context(), "nft", "list", "ruleset").CombinedOutput()
	require.NoError(t, err, string(ruleset))
	seen["rules of the network"] = string(ruleset)
	return seen
}

func (s traces) mounts(t *testing.T) {
	t.Helper()
	mounts, err := procfs.GetMounts()
	require.NoError(t, err)
	for _, mount := range mounts {
		s["mount "+mount.MountPoint] = mount.Source
	}
}

// cgroups notes those of every hierarchy below the one that this process is in; what others do elsewhere is none of ours.
func (s traces) cgroups(t *testing.T) {
	t.Helper()
	self, err := procfs.Self()
	require.NoError(t, err)
	groups, err := self.Cgroups()
	require.NoError(t, err)
	for _, group := range groups {
		name := strings.TrimPrefix(strings.Join(group.Controllers, ","), "name=")
		if name == "" {
			name = "unified"
		}
		root := filepath.Clean("/sys/fs/cgroup/" + name + group.Path)
		require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				s["cgroup "+path] = ""
			}
			return nil // It has just gone.
		}))
	}
}

// restless are sysctls that change by themselves.
func restless() []string {
	return []string{
		"fs/dentry-state", "fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/aio-nr", "fs/quota", "kernel/ns_last_pid", "kernel/pty/nr", "kernel/random",
		"net/netfilter/nf_conntrack_count", "kernel/tainted",
	}
}

func (s traces) sysctls(t *testing.T) {
	t.Helper()
	const root = "/proc/sys"
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, root+"/")
		if slices.ContainsFunc(restless(), func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			return nil
		}
		if err == nil && !entry.IsDir() {
			if value, err := os.ReadFile(path); err == nil { // Some can only be written.
				s["sysctl "+name] = string(value)
			}
		}
		return nil
	}))
}

// since lists what is there and was not before, has another value or is there no more.
func (s traces) since(before traces) []string {
	var changed []string
	for name, value := range s {
		if earlier, was := before[name]; !was || earlier != value {
			changed = append(changed, name)
		}
	}
	for name := range before {
		// Cgroups that an earlier run has left are swept by this one.
		if _, is := s[name]; !is && !strings.HasPrefix(name, "cgroup ") {
			changed = append(changed, name+" (gone)")
		}
	}
	slices.Sort(changed)
	return changed
}

// crowd are the processes of a cluster, with the namespaces that they are in.
type crowd struct {
	ids        []proc.Identity
	namespaces map[string]bool
}

// crowdOf finds all processes of the cgroup and their namespaces, but for this process's own.
func crowdOf(t *testing.T, cgroup string) crowd {
	t.Helper()
	c := crowd{namespaces: map[string]bool{}}
	own := namespacesOf(os.Getpid())
	processes, err := procfs.AllProcs()
	require.NoError(t, err)
	for _, process := range processes {
		content, err := os.ReadFile("/proc/" + itoa(process.PID) + "/cgroup")
		if err != nil || !strings.Contains(string(content), cgroup) {
			continue
		}
		if id, err := proc.Identify(process.PID); err == nil {
			c.ids = append(c.ids, id)
		}
		for _, namespace := range namespacesOf(process.PID) {
			if !slices.Contains(own, namespace) {
				c.namespaces[namespace] = true
			}
		}
	}
	return c
}

func namespacesOf(pid int) []string {
	var found []string
	for _, kind := range []string{"mnt", "net", "pid", "ipc", "uts", "cgroup"} {
		if link, err := os.Readlink("/proc/" + itoa(pid) + "/ns/" + kind); err == nil {
			found = append(found, link)
		}
	}
	return found
}

// left are the processes of the crowd that live, and any others in its namespaces.
func (c crowd) left(t *testing.T) []int {
	t.Helper()
	var left []int
	for _, id := range c.ids {
		if id.Alive() {
			left = append(left, id.PID)
		}
	}
	processes, err := procfs.AllProcs()
	require.NoError(t, err)
	for _, process := range processes {
		if slices.ContainsFunc(namespacesOf(process.PID), func(namespace string) bool { return c.namespaces[namespace] }) {
			left = append(left, process.PID)
		}
	}
	return left
}
