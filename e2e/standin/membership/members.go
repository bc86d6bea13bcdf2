package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/disk"
)

// entry is what the cluster knows of a node. The entry with the higher version wins.
type entry struct {
	Present bool  `json:"present"`
	Version int64 `json:"version"` // unix nanoseconds of the change
	Seen    bool  `json:"seen"`    // has run since it became a member
}

// table is the membership by node name.
type table map[string]entry

// merge adopts newer entries and reports whether anything changed.
func (t table) merge(other table) bool {
	changed := false
	for name, theirs := range other {
		mine, known := t[name]
		switch {
		case !known || theirs.Version > mine.Version:
			t[name] = theirs
			changed = true
		case theirs.Version == mine.Version && theirs.Seen && !mine.Seen:
			mine.Seen = true
			t[name] = mine
			changed = true
		}
	}
	return changed
}

func (t table) present() []string {
	names := make([]string, 0, len(t))
	for name, e := range t {
		if e.Present {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

func (t table) clone() table {
	c := make(table, len(t))
	for name, e := range t {
		c[name] = e
	}
	return c
}

func membersFile(dir string) string { return filepath.Join(dir, "members.json") }

// loadTable reads the remembered membership; a node without one is alone.
func loadTable(dir, self string) (table, error) {
	alone := table{self: {Present: true, Seen: true}}
	if dir == "" {
		return alone, nil
	}
	data, err := os.ReadFile(membersFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return alone, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the remembered members: %w", err)
	}
	t := table{}
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("read the remembered members: %w", err)
	}
	if !t[self].Present { // the directory of another node, or of this one under another name
		return alone, nil
	}
	return t, nil
}

func (t table) save(dir string) error {
	if dir == "" {
		return nil
	}
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the members: %w", err)
	}
	if err := disk.Replace(membersFile(dir), data); err != nil {
		return fmt.Errorf("remember the members: %w", err)
	}
	return nil
}
