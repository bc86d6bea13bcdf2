package podvolume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podenv"
)

// defaultMode is that of the API for all volumes made of files.
const defaultMode = 0o644

// render computes what a volume holds.
func (v *Volumes) render(
	ctx context.Context, pod *corev1.Pod, volume *corev1.Volume, addresses podenv.Addresses,
) (payload, error) {
	r := &renderer{volumes: v, pod: pod, addresses: addresses, content: payload{}}
	var err error
	switch {
	case volume.Secret != nil:
		s := volume.Secret
		err = r.secret(ctx, s.SecretName, s.Items, s.Optional, mode(s.DefaultMode, defaultMode))
	case volume.ConfigMap != nil:
		c := volume.ConfigMap
		err = r.configMap(ctx, c.Name, c.Items, c.Optional, mode(c.DefaultMode, defaultMode))
	case volume.DownwardAPI != nil:
		err = r.downwardAPI(volume.DownwardAPI.Items, mode(volume.DownwardAPI.DefaultMode, defaultMode))
	case volume.Projected != nil:
		err = r.projected(ctx, volume.Projected)
	default:
		err = errors.New("the local node agent has no volumes of this kind; it knows emptyDir, persistentVolumeClaim, ephemeral, secret, configMap, projected and downwardAPI")
	}
	return r.content, err
}

func mode(value *int32, fallback os.FileMode) os.FileMode {
	if value == nil {
		return fallback
	}
	return os.FileMode(*value).Perm() //nolint:gosec // the API takes 0 to 0777 only
}

type renderer struct {
	volumes   *Volumes
	pod       *corev1.Pod
	addresses podenv.Addresses
	content   payload
}

func (r *renderer) projected(ctx context.Context, projected *corev1.ProjectedVolumeSource) error {
	fileMode := mode(projected.DefaultMode, defaultMode)
	for i := range projected.Sources {
		source := &projected.Sources[i]
		var err error
		switch {
		case source.ServiceAccountToken != nil:
			err = r.token(ctx, source.ServiceAccountToken, fileMode)
		case source.Secret != nil:
			err = r.secret(ctx, source.Secret.Name, source.Secret.Items, source.Secret.Optional, fileMode)
		case source.ConfigMap != nil:
			err = r.configMap(ctx, source.ConfigMap.Name, source.ConfigMap.Items, source.ConfigMap.Optional, fileMode)
		case source.DownwardAPI != nil:
			err = r.downwardAPI(source.DownwardAPI.Items, fileMode)
		default:
			err = fmt.Errorf("the local node agent does not know projected source %d", i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func optional(flag *bool) bool { return flag != nil && *flag }

func (r *renderer) secret(ctx context.Context, name string, items []corev1.KeyToPath, flag *bool, fileMode os.FileMode) error {
	secret, err := r.volumes.source.Secret(ctx, r.pod.Namespace, name)
	if apierrors.IsNotFound(err) {
		if optional(flag) {
			return nil
		}
		return podenv.NewConfigError("secret %q not found", name)
	}
	if err != nil {
		return fmt.Errorf("read secret %q: %w", name, err)
	}
	return r.keys("secret "+name, secret.Data, items, optional(flag), fileMode)
}

func (r *renderer) configMap(ctx context.Context, name string, items []corev1.KeyToPath, flag *bool, fileMode os.FileMode) error {
	configMap, err := r.volumes.source.ConfigMap(ctx, r.pod.Namespace, name)
	if apierrors.IsNotFound(err) {
		if optional(flag) {
			return nil
		}
		return podenv.NewConfigError("configmap %q not found", name)
	}
	if err != nil {
		return fmt.Errorf("read configmap %q: %w", name, err)
	}
	data := map[string][]byte{}
	for key, value := range configMap.Data {
		data[key] = []byte(value)
	}
	for key, value := range configMap.BinaryData {
		data[key] = value
	}
	return r.keys("configmap "+name, data, items, optional(flag), fileMode)
}

// keys takes all keys, or those that items name to the paths and modes they give.
func (r *renderer) keys(object string, data map[string][]byte, items []corev1.KeyToPath, absentOK bool, fileMode os.FileMode) error {
	if len(items) == 0 {
		for key, value := range data {
			r.content[key] = file{content: value, mode: fileMode}
		}
		return nil
	}
	for _, item := range items {
		value, has := data[item.Key]
		if !has {
			if absentOK {
				continue
			}
			return podenv.NewConfigError("references non-existent %s key: %s", object, item.Key)
		}
		r.content[item.Path] = file{content: value, mode: mode(item.Mode, fileMode)}
	}
	return nil
}

func (r *renderer) downwardAPI(items []corev1.DownwardAPIVolumeFile, fileMode os.FileMode) error {
	for i := range items {
		item := &items[i]
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = podenv.FieldValue(r.pod, item.FieldRef.FieldPath, r.addresses)
		case item.ResourceFieldRef != nil:
			value, err = podenv.ResourceValue(r.pod, item.ResourceFieldRef, item.ResourceFieldRef.ContainerName, r.volumes.allocatable)
		}
		if err != nil {
			return err
		}
		r.content[item.Path] = file{content: []byte(value), mode: mode(item.Mode, fileMode)}
	}
	return nil
}

// token uses a token until four fifths of its life are over.
func (r *renderer) token(ctx context.Context, projection *corev1.ServiceAccountTokenProjection, fileMode os.FileMode) error {
	seconds := int64(3600)
	if projection.ExpirationSeconds != nil {
		seconds = *projection.ExpirationSeconds
	}
	key := tokenKey{audience: projection.Audience, seconds: seconds}
	now := r.volumes.now()
	cached, has := r.volumes.cached[key]
	if !has || !now.Before(cached.refresh) {
		token, expires, err := r.volumes.tokens.Token(ctx, r.pod, projection.Audience, seconds)
		if err != nil {
			return fmt.Errorf("fetch a token: %w", err)
		}
		cached = cachedToken{token: token, refresh: now.Add(expires.Sub(now) * 4 / 5)}
		if cached.refresh.Before(now.Add(time.Second)) {
			cached.refresh = now.Add(time.Second)
		}
		r.volumes.cached[key] = cached
	}
	r.content[projection.Path] = file{content: []byte(cached.token), mode: fileMode}
	return nil
}
