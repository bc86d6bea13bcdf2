package api

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/disk"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// Change is what was changed by API, as the nodes exchange it. The later of two counts.
type Change struct {
	Text    string `json:"text"`           // HOCON of all changes so far
	Root    string `json:"root,omitempty"` // which of them is new; empty: any
	Version int64  `json:"version"`
}

// Store is a node's configuration: its own layers, and the cluster's changes.
type Store struct {
	dir string // where changes are remembered; empty: nowhere

	mu        sync.RWMutex
	layers    settings.Layers
	changes   settings.Tree
	effective settings.Tree // never changed, only replaced
	version   int64
}

// NewStore reads the changes that an earlier run remembered.
func NewStore(layers settings.Layers, dir string) (*Store, error) {
	s := &Store{dir: dir, layers: layers, changes: settings.Tree{}}
	if dir != "" {
		data, err := os.ReadFile(s.file())
		if err == nil {
			if s.changes, err = settings.Parse(string(data)); err != nil {
				return nil, fmt.Errorf("read configuration %s: %w", s.file(), err)
			}
			s.version = versionOf(string(data))
		} else if !os.IsNotExist(err) {
			return nil, fmt.Errorf("read the changed configuration: %w", err)
		}
	}
	s.effective = layers.Effective(s.changes)
	return s, nil
}

// versionMark begins the line in which the file says which of the cluster's changes is its last, so that a node that
// starts again tells others what they have missed, and is told.
const versionMark = "## version "

// versionOf is 1 for a file without the line: anybody's changes are newer.
func versionOf(text string) int64 {
	line, _, _ := strings.Cut(text, "\n")
	number, found := strings.CutPrefix(line, versionMark)
	version, err := strconv.ParseInt(number, 10, 64)
	if !found || err != nil {
		return 1
	}
	return version
}

func (s *Store) file() string { return filepath.Join(s.dir, "configs", "cluster.hocon") }

// Effective is the configuration as it is now. It must not be changed.
func (s *Store) Effective() settings.Tree {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.effective
}

// Preview is a root after a change of it.
func (s *Store) Preview(root string, value any, replace bool) any {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return settings.Changed(root, s.effective[root], value, replace)
}

// Commit puts a root in the place of the present one and returns the change for the other nodes.
func (s *Store) Commit(root string, value any) (Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes[root] = value
	s.effective = s.effective.Clone()
	s.effective[root] = value
	s.version = max(s.version+1, time.Now().UnixNano())
	return Change{Text: s.changes.Render(), Root: root, Version: s.version}, s.saveLocked()
}

// Drop takes a listener away for good.
func (s *Store) Drop(kind, name string) (Change, error) {
	listeners := s.Effective().Sub("listeners").Clone()
	listeners.Set(settings.Deleted, kind, name)
	return s.Commit("listeners", listeners)
}

// Learn takes the changes that another node made, and reports whether they were new. The root that has just been changed
// counts over this node's own file and environment until the node restarts; what was missed before counts below them.
func (s *Store) Learn(c Change) (bool, error) {
	tree, err := settings.Parse(c.Text)
	if err != nil {
		return false, fmt.Errorf("read the configuration of another node: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Version <= s.version {
		return false, nil
	}
	s.version, s.changes = c.Version, tree
	if c.Root == "" {
		s.effective = s.layers.Effective(tree)
	} else {
		s.effective = s.effective.Clone()
		s.effective[c.Root] = tree[c.Root]
	}
	return true, s.saveLocked()
}

// Current is all changes so far, for a node that has just connected.
func (s *Store) Current() (Change, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Change{Text: s.changes.Render(), Version: s.version}, s.version > 0
}

func (s *Store) saveLocked() error {
	if s.dir == "" {
		return nil
	}
	content := fmt.Sprintf("%s%d\n%s", versionMark, s.version, s.changes.Render())
	if err := disk.Replace(s.file(), []byte(content)); err != nil {
		return fmt.Errorf("remember the changed configuration: %w", err)
	}
	return nil
}
