package localkube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/controlplane"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// downTimeout bounds a stop, which usually takes a moment.
const downTimeout = time.Minute

// DownOptions says what to stop and what to keep.
type DownOptions struct {
	// Dir is the cluster's directory.
	Dir string
	// Purge removes the logs, and the directory if nothing else is in it.
	Purge bool
	// Registry is that of UpOptions.
	Registry state.Registry
}

// ErrNothingToStop is returned by Down when the directory has no cluster; logs are purged nevertheless.
var ErrNothingToStop = errors.New("nothing to stop")

// Down ends every process of the cluster, pods' processes included, and removes its state. Pods are not asked to stop
// first.
func Down(ctx context.Context, options DownOptions) error {
	if options.Registry == "" {
		options.Registry = state.DefaultRegistry()
	}
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	path, err := state.OpenDir(options.Dir)
	if err != nil {
		return err
	}
	dir := directory{path}
	if _, err := os.Stat(string(dir.Dir)); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: the directory %s does not exist", ErrNothingToStop, dir.Dir)
	}
	if err := dir.checkUse(); err != nil {
		return err
	}
	release, err := dir.Lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	s, err := dir.Load()
	nothing := errors.Is(err, state.ErrNotUp)
	if err != nil && !nothing {
		return err
	}
	if !nothing {
		if err := dir.stop(ctx, options.Registry, s); err != nil {
			return err
		}
	}
	if options.Purge {
		if err := dir.purge(); err != nil {
			return err
		}
	}
	if nothing {
		return fmt.Errorf("%w: no cluster is up in %s", ErrNothingToStop, dir.Dir)
	}
	return nil
}

// stop ends all processes of the cluster and forgets it.
func (d directory) stop(ctx context.Context, registry state.Registry, s *state.State) error {
	bootID, err := proc.BootID()
	if err != nil {
		return err
	}
	if s.BootID == bootID {
		// The agent first, so that it does not restart what is ended here.
		names := controlplane.Names()
		for i := range names {
			id := s.Processes[names[len(names)-1-i]]
			if err := id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, proc.ErrGone) {
				return fmt.Errorf("stop %s: %w", names[len(names)-1-i], err)
			}
		}
		for _, id := range s.Processes {
			if err := id.WaitGone(ctx); err != nil {
				return err
			}
		}
		if _, err := proc.KillByEnv(ctx, state.ClusterEnv, s.ID); err != nil {
			return fmt.Errorf("stop the processes of pods: %w", err)
		}
	}
	return d.clean(registry, s)
}

// perishable are the parts of a cluster's directory that end with it.
func perishable() []string {
	return []string{"pki", "etcd", "run", "pods", "volumes", "admin.kubeconfig"}
}

// clean removes the state of a cluster without processes; cluster.json goes last, so that a second `down` completes a
// first that was interrupted.
func (d directory) clean(registry state.Registry, s *state.State) error {
	if err := d.removePerishable(); err != nil {
		return err
	}
	if err := registry.Release(s); err != nil {
		return err
	}
	if err := os.Remove(d.StateFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the cluster's state: %w", err)
	}
	return nil
}

func (d directory) removePerishable() error {
	for _, name := range perishable() {
		if err := os.RemoveAll(d.Path(name)); err != nil {
			return fmt.Errorf("remove the cluster's state: %w", err)
		}
	}
	return nil
}

func (d directory) purge() error {
	// The older parts of the audit log have a time in their names.
	rotated, err := filepath.Glob(d.Path("audit-*.log"))
	if err != nil {
		return fmt.Errorf("look for audit logs: %w", err)
	}
	for _, path := range rotated {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove logs: %w", err)
		}
	}
	for _, name := range ours() {
		if err := os.RemoveAll(d.Path(name)); err != nil {
			return fmt.Errorf("remove logs: %w", err)
		}
	}
	// It stays when there is something else in it.
	_ = os.Remove(string(d.Dir))
	return nil
}
