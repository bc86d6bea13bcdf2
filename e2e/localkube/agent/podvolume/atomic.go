package podvolume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is one file of a volume.
type file struct {
	content []byte
	mode    os.FileMode
}

// payload is the content of a volume by relative path.
type payload map[string]file

const (
	dataLink    = "..data"
	pendingLink = "..data_tmp"
)

// write makes the directory hold the payload. Readers see the old or the new content and never a mixture: the files
// lie in a directory of their own to which a link points that is replaced at once, as in the kubelet's volumes.
func (p payload) write(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	link := filepath.Join(dir, dataLink)
	old, err := os.Readlink(link)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if old != "" && p.equals(filepath.Join(dir, old)) {
		return nil
	}
	version, err := os.MkdirTemp(dir, "..version_")
	if err != nil {
		return err
	}
	if err := p.writeFiles(version); err != nil {
		return errors.Join(err, os.RemoveAll(version))
	}
	pending := filepath.Join(dir, pendingLink)
	if err := os.Remove(pending); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Base(version), pending); err != nil {
		return err
	}
	if err := os.Rename(pending, link); err != nil {
		return err
	}
	if err := p.linkTop(dir); err != nil {
		return err
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(dir, old))
}

func (p payload) writeFiles(dir string) error {
	for name, f := range p {
		path, err := within(dir, name)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.content, f.mode); err != nil {
			return err
		}
		// The umask of this process must not remove any bits.
		if err := os.Chmod(path, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// linkTop makes a link for every first path element and removes links that are no longer needed.
func (p payload) linkTop(dir string) error {
	wanted := map[string]bool{}
	for name := range p {
		first, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		wanted[first] = true
	}
	for name := range wanted {
		if err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil || wanted[entry.Name()] || target != filepath.Join(dataLink, entry.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// equals reports whether the directory holds exactly the payload.
func (p payload) equals(dir string) bool {
	found := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		wanted, has := p[relative]
		content, readErr := os.ReadFile(path) //nolint:gosec // the volume is the agent's own
		info, infoErr := entry.Info()
		if !has || readErr != nil || infoErr != nil || !bytes.Equal(content, wanted.content) || info.Mode().Perm() != wanted.mode {
			return fs.ErrInvalid
		}
		found++
		return nil
	})
	return err == nil && found == len(p)
}

// within joins a relative path to the directory and refuses one that leads out of it.
func within(dir, name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("the path %q leads out of the volume", name)
	}
	return filepath.Join(dir, name), nil
}
