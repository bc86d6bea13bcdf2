// Package podvolume makes the volumes of a pod as directories and lets each container see them under a root directory
// of its own, at the paths where a real container would have them mounted.
//
// What differs from a kubelet: a mount is a symbolic link, so a volume that is mounted within another becomes visible
// in that one, and nothing is read-only. A file mounted by subPath is a copy made when the container starts, which is
// not updated later, as in a real container. Updates of Secrets and ConfigMaps arrive at once. The volume of a claim is a
// directory outside the pod's own; fsGroup has no effect on it. Host paths, CSI and other storage are refused by name.
package podvolume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podenv"
)

// Tokens asks for tokens of service accounts.
type Tokens interface {
	// Token returns a token for the pod's service account that is bound to the pod, and when it expires. An empty
	// audience is that of the API server.
	Token(ctx context.Context, pod *corev1.Pod, audience string, expirationSeconds int64) (token string, expires time.Time, err error)
}

// Claims finds the volumes of claims.
type Claims interface {
	// Directory is where the volume lies that the pod's claim is bound to. The volume is a claim or an ephemeral one.
	Directory(ctx context.Context, pod *corev1.Pod, volume *corev1.Volume) (string, error)
}

// Volumes are those of one pod. Its methods must not be called at the same time.
type Volumes struct {
	dir         string
	source      podenv.Source
	tokens      Tokens
	claims      Claims
	allocatable podenv.Allocatable
	now         func() time.Time

	cached map[tokenKey]cachedToken
}

type tokenKey struct {
	audience string
	seconds  int64
}

type cachedToken struct {
	token   string
	refresh time.Time
}

// New returns the volumes of the pod whose directory is dir. Nothing is created before Setup.
func New(
	dir string, source podenv.Source, tokens Tokens, claims Claims, allocatable podenv.Allocatable, now func() time.Time,
) *Volumes {
	return &Volumes{
		dir: dir, source: source, tokens: tokens, claims: claims, allocatable: allocatable, now: now, cached: map[tokenKey]cachedToken{},
	}
}

// SetupError names the volume that could not be made.
type SetupError struct {
	Volume string
	Err    error
}

// Error says which volume and why.
func (e *SetupError) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}

// Unwrap returns the reason.
func (e *SetupError) Unwrap() error { return e.Err }

// Setup makes the pod's volumes, or brings them up to date. It returns when it should be called again because a token
// is to be renewed; the zero time for never.
func (v *Volumes) Setup(ctx context.Context, pod *corev1.Pod, addresses podenv.Addresses) (again time.Time, err error) {
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if err := v.setup(ctx, pod, volume, addresses); err != nil {
			return time.Time{}, &SetupError{Volume: volume.Name, Err: err}
		}
	}
	for _, token := range v.cached {
		if again.IsZero() || token.refresh.Before(again) {
			again = token.refresh
		}
	}
	return again, nil
}

func (v *Volumes) setup(ctx context.Context, pod *corev1.Pod, volume *corev1.Volume, addresses podenv.Addresses) error {
	path := v.path(volume.Name)
	switch {
	case volume.EmptyDir != nil:
		return os.MkdirAll(path, 0o750)
	case volume.PersistentVolumeClaim != nil, volume.Ephemeral != nil:
		directory, err := v.claims.Directory(ctx, pod, volume)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return err
		}
		return replaceByLink(directory, path)
	}
	content, err := v.render(ctx, pod, volume, addresses)
	if err != nil {
		return err
	}
	return content.write(path)
}

// writable reports whether a volume is the containers' own to write to, and not made of what the API has.
func writable(volume *corev1.Volume) bool {
	return volume.EmptyDir != nil || volume.PersistentVolumeClaim != nil || volume.Ephemeral != nil
}

func (v *Volumes) path(volume string) string { return filepath.Join(v.dir, "volumes", volume) }

// Root is the directory that stands for a container's root, LOCAL_POD_ROOT.
func (v *Volumes) Root(container string) string {
	return filepath.Join(v.dir, "containers", container, "root")
}

// Remove deletes everything of the pod.
func (v *Volumes) Remove() error {
	if err := os.RemoveAll(v.dir); err != nil {
		return fmt.Errorf("remove the pod's directory: %w", err)
	}
	return nil
}

// TokenFile returns the path, in the container's root, of the token for the API server that the container mounts;
// empty when it mounts none.
func (v *Volumes) TokenFile(pod *corev1.Pod, container *corev1.Container) string {
	for _, mount := range container.VolumeMounts {
		for i := range pod.Spec.Volumes {
			volume := &pod.Spec.Volumes[i]
			if volume.Name != mount.Name || volume.Projected == nil {
				continue
			}
			for _, source := range volume.Projected.Sources {
				if source.ServiceAccountToken != nil && source.ServiceAccountToken.Audience == "" {
					return filepath.Join(v.Root(container.Name), mount.MountPath, source.ServiceAccountToken.Path)
				}
			}
		}
	}
	return ""
}
