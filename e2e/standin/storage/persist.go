package storage

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SiteFile is where a node keeps the id of its site, in its data directory.
var SiteFile = filepath.Join("ds", "site") //nolint:gochecknoglobals // a path

var tableFile = filepath.Join("ds", "table.json") //nolint:gochecknoglobals // a path

// loadSite reads the id of this node's site, or makes one: sixteen digits, as EMQX does.
func loadSite(dir string) (string, error) {
	if dir != "" {
		data, err := os.ReadFile(filepath.Join(dir, SiteFile))
		if id := strings.TrimSpace(string(data)); err == nil && id != "" {
			return id, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read the site of durable storage: %w", err)
		}
	}
	raw := make([]byte, 8)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make a site of durable storage: %w", err)
	}
	id := strings.ToUpper(hex.EncodeToString(raw))
	return id, write(dir, SiteFile, []byte(id+"\n"))
}

func loadTable(dir string) (Table, error) {
	t := NewTable()
	if dir == "" {
		return t, nil
	}
	data, err := os.ReadFile(filepath.Join(dir, tableFile))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &t)
	}
	if err != nil {
		return t, fmt.Errorf("read the table of durable storage: %w", err)
	}
	return t, nil
}

func (t Table) save(dir string) error {
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encode the table of durable storage: %w", err)
	}
	return write(dir, tableFile, data)
}

// write keeps a file; without a directory nothing is kept.
func write(dir, name string, data []byte) error {
	if dir == "" {
		return nil
	}
	path := filepath.Join(dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o750)
	if err == nil {
		err = os.WriteFile(path+".tmp", data, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return fmt.Errorf("keep durable storage: %w", err)
	}
	return nil
}
