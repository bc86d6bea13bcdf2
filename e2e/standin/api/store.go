package api

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// Change is what was changed by API, as the nodes exchange it. The later of two counts.
type Change struct {
	Text    string `json:"text"` // HOCON of all changes so far
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
		} else if !os.IsNotExist(err) {
			return nil, fmt.Errorf("read the changed configuration: %w", err)
		}
	}
	s.effective = layers.Effective(s.changes)
	return s, nil
}

func (s *Store) file() string { return filepath.Join(s.dir, "configs", "cluster.hocon") }

// Effective is the configuration as it is now. It must not be changed.
func (s *Store) Effective() settings.Tree {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.effective
}

// Preview is what the configuration would be with other roots merged into it or in place of the present ones.
func (s *Store) Preview(roots settings.Tree, replace bool) settings.Tree {
	s.mu.RLock()
	defer s.mu.RUnlock()
	next := s.effective.Clone()
	if replace {
		for _, root := range roots.Keys() {
			base := settings.Tree{}
			if root != "listeners" { // listeners that are not named are gone; other roots have defaults
				base = s.layers.Base.Sub(root).Clone()
			}
			next[root] = base
		}
	}
	next.Merge(roots)
	return next
}

// Commit makes the change and returns it for the other nodes.
func (s *Store) Commit(roots settings.Tree, replace bool) (Change, error) {
	next := s.Preview(roots, replace)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, root := range roots.Keys() {
		s.changes[root] = next[root]
	}
	s.effective = next
	s.version = max(s.version+1, time.Now().UnixNano())
	return Change{Text: s.changes.Render(), Version: s.version}, s.saveLocked()
}

// Drop takes a value away, such as a listener.
func (s *Store) Drop(path ...string) (Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.effective.Clone()
	next.Set(nil, path...)
	s.changes[path[0]] = next[path[0]]
	s.effective = next
	s.version = max(s.version+1, time.Now().UnixNano())
	return Change{Text: s.changes.Render(), Version: s.version}, s.saveLocked()
}

// Learn takes the changes that another node made, and reports whether they were new.
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
	next := s.effective.Clone()
	next.Merge(s.sharedPart(tree))
	s.effective = next
	return true, s.saveLocked()
}

// sharedPart leaves out what is a node's own: the addresses that it binds to are in its own file or environment.
func (s *Store) sharedPart(tree settings.Tree) settings.Tree {
	shared := tree.Clone()
	own := s.layers.File.Clone()
	own.Merge(s.layers.Environment)
	for _, l := range own.Listeners() {
		if bind, given := own.Get("listeners", l.Type, l.Name, "bind"); given {
			if _, changed := shared.Get("listeners", l.Type, l.Name); changed {
				shared.Set(bind, "listeners", l.Type, l.Name, "bind")
			}
		}
	}
	return shared
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
	if err := os.MkdirAll(filepath.Dir(s.file()), 0o750); err != nil {
		return fmt.Errorf("remember the changed configuration: %w", err)
	}
	tmp := s.file() + ".tmp"
	if err := os.WriteFile(tmp, []byte(s.changes.Render()), 0o600); err != nil {
		return fmt.Errorf("remember the changed configuration: %w", err)
	}
	if err := os.Rename(tmp, s.file()); err != nil {
		return fmt.Errorf("remember the changed configuration: %w", err)
	}
	return nil
}
