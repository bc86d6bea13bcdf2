package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/disk"
)

// survivors are the other members that ran when this node last did: they may know what it does not.
type survivors struct {
	path string // empty: they are not remembered
	list []string
}

func loadSurvivors(dir string) (survivors, error) {
	if dir == "" {
		return survivors{}, nil
	}
	s := survivors{path: filepath.Join(dir, "survivors.json")}
	data, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s.list)
	}
	if err != nil {
		return s, fmt.Errorf("read who ran last: %w", err)
	}
	return s, nil
}

// set remembers the list when it is another one.
func (s *survivors) set(list []string) error {
	if s.path == "" || slices.Equal(s.list, list) {
		return nil
	}
	s.list = list
	data, err := json.Marshal(list)
	if err == nil {
		err = disk.Replace(s.path, data)
	}
	if err != nil {
		return fmt.Errorf("remember who runs: %w", err)
	}
	return nil
}

// Behind reports whether a node that starts has to wait: others ran after it had stopped, none of them runs, and not all
// of them wait like this one.
func (c *Cluster) Behind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	absent := false
	for _, name := range c.survivors.list {
		if !c.members[name].Present {
			continue
		}
		p := c.peers[name]
		if p != nil && p.linked && p.running {
			return false
		}
		absent = absent || p == nil || !p.linked
	}
	return absent
}

// survivorsLocked notes who runs, as long as this node does.
func (c *Cluster) survivorsLocked() {
	if !c.running {
		return
	}
	others := slices.DeleteFunc(c.runningLocked(), func(name string) bool { return name == c.cfg.Self })
	if err := c.survivors.set(others); err != nil {
		c.cfg.Log.Error("membership", "error", err)
	}
}
