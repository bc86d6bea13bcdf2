package podvolume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podenv"
)

// Mount makes a new root for the container, with its volumes in their places, and returns it. What the container wrote
// outside of volumes is gone, as after the restart of a real container.
func (v *Volumes) Mount(pod *corev1.Pod, container *corev1.Container, env map[string]string) (root string, err error) {
	root = v.Root(container.Name)
	// RemoveAll removes the links and not what they lead to.
	if err := os.RemoveAll(root); err != nil {
		return "", fmt.Errorf("clear the container's root: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(root, "tmp"), 0o750); err != nil {
		return "", fmt.Errorf("make the container's root: %w", err)
	}
	mounts := slices.Clone(container.VolumeMounts)
	// Outer mounts first.
	slices.SortStableFunc(mounts, func(a, b corev1.VolumeMount) int {
		return len(filepath.Clean(a.MountPath)) - len(filepath.Clean(b.MountPath))
	})
	for i := range mounts {
		if err := v.mount(pod, root, &mounts[i], env); err != nil {
			return "", fmt.Errorf("mount volume %q at %s: %w", mounts[i].Name, mounts[i].MountPath, err)
		}
	}
	return root, makeMessageFile(root, container.TerminationMessagePath)
}

func makeMessageFile(root, path string) error {
	if path == "" {
		return nil
	}
	full := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
		return fmt.Errorf("make the place of the termination message: %w", err)
	}
	if err := os.WriteFile(full, nil, 0o600); err != nil {
		return fmt.Errorf("make the place of the termination message: %w", err)
	}
	return nil
}

func (v *Volumes) mount(pod *corev1.Pod, root string, mount *corev1.VolumeMount, env map[string]string) error {
	at := slices.IndexFunc(pod.Spec.Volumes, func(volume corev1.Volume) bool { return volume.Name == mount.Name })
	if at < 0 {
		return errors.New("the pod has no volume of this name")
	}
	target := filepath.Join(root, filepath.Clean("/"+mount.MountPath))
	if target == root {
		return errors.New("nothing can be mounted at the root")
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	subPath := mount.SubPath
	if mount.SubPathExpr != "" {
		subPath = podenv.Expand([]string{mount.SubPathExpr}, env)[0]
	}
	source := v.path(mount.Name)
	if subPath == "" {
		return replaceByLink(source, target)
	}
	full, err := within(source, subPath)
	if err != nil {
		return err
	}
	if writable(&pod.Spec.Volumes[at]) {
		if err := os.MkdirAll(full, 0o750); err != nil {
			return err
		}
		return replaceByLink(full, target)
	}
	return copyTree(full, target)
}

// replaceByLink links to the source. A directory that an earlier start left within a volume gives way to the link.
func replaceByLink(source, target string) error {
	if existing, err := os.Readlink(target); err == nil && existing == source {
		return nil
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	return os.Symlink(source, target)
}

// copyTree copies a file or directory of a volume, following the links that the volume is made of.
func copyTree(source, target string) error {
	origin, err := filepath.EvalSymlinks(source)
	if errors.Is(err, os.ErrNotExist) {
		// A subPath that is not there becomes an empty directory.
		return os.MkdirAll(target, 0o750)
	}
	if err != nil {
		return err
	}
	return filepath.WalkDir(origin, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		place := filepath.Join(target, strings.TrimPrefix(path, origin))
		if entry.IsDir() {
			return os.MkdirAll(place, 0o750)
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path) //nolint:gosec // the volume is the agent's own
		if err != nil {
			return err
		}
		if err := os.RemoveAll(place); err != nil {
			return err
		}
		return os.WriteFile(place, content, info.Mode().Perm()) //nolint:gosec // within the container's root
	})
}
