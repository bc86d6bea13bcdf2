// Package disk keeps a stand-in node's files such that a node that is killed finds either the old or the new ones.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Replace writes a file beside the path and renames it, after it has made the directory.
func Replace(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("make the directory of %s: %w", path, err)
	}
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temporary))
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
