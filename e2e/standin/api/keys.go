package api

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/disk"
)

// Key is an API key as the nodes exchange it; the secret is not in it.
type Key struct {
	Key  string `json:"key"`
	Salt []byte `json:"salt"`
	Hash []byte `json:"hash"`
	Role Role   `json:"role"`
	// Scopes are what it may be used for; nil for everything.
	Scopes  []string `json:"scopes,omitempty"`
	Version int64    `json:"version"` // unix nanoseconds; the later of two counts
}

// Keys is the table of API keys, the same on every node, and on the disk of each.
type Keys struct {
	// Scoped tells that the imitated release knows scopes.
	scoped bool
	path   string    // where the table is kept; empty: nowhere
	tell   func(Key) // the other nodes

	mu   sync.RWMutex
	keys map[string]Key
}

// NewKeys reads the table that an earlier run has kept in the file, if it has; with no path nothing is kept. tell is called
// with every key that is put here.
func NewKeys(path, version string, tell func(Key)) (*Keys, error) {
	k := &Keys{path: path, scoped: knowsScopes(version), tell: tell, keys: map[string]Key{}}
	if path == "" {
		return k, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return k, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &k.keys)
	}
	if err != nil {
		return nil, fmt.Errorf("read the API keys: %w", err)
	}
	return k, nil
}

func hash(salt []byte, secret string) []byte {
	sum := sha256.Sum256(append(append([]byte{}, salt...), secret...))
	return sum[:]
}

// Check gives what is known of a key if the secret is right.
func (k *Keys) Check(key, secret string) (Key, bool) {
	k.mu.RLock()
	entry, known := k.keys[key]
	k.mu.RUnlock()
	if !known || subtle.ConstantTimeCompare(entry.Hash, hash(entry.Salt, secret)) != 1 {
		return Key{}, false
	}
	return entry, true
}

// Put enters a key here and on the other nodes, replacing its secret, role and scopes.
func (k *Keys) Put(key, secret string, role Role, scopes []string) error {
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return fmt.Errorf("make a salt: %w", err)
	}
	entry := Key{Key: key, Salt: salt, Hash: hash(salt, secret), Role: role, Scopes: scopes, Version: time.Now().UnixNano()}
	if err := k.Learn(entry); err != nil {
		return err
	}
	k.tell(entry)
	return nil
}

// Learn takes keys from another node.
func (k *Keys) Learn(entries ...Key) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := false
	for _, entry := range entries {
		if k.keys[entry.Key].Version < entry.Version {
			k.keys[entry.Key] = entry
			changed = true
		}
	}
	if !changed || k.path == "" {
		return nil
	}
	data, err := json.Marshal(k.keys)
	if err == nil {
		err = disk.Replace(k.path, data)
	}
	if err != nil {
		return fmt.Errorf("keep the API keys: %w", err)
	}
	return nil
}

// All lists the keys for a node that has just connected.
func (k *Keys) All() []Key {
	k.mu.RLock()
	defer k.mu.RUnlock()
	all := make([]Key, 0, len(k.keys))
	for _, entry := range k.keys {
		all = append(all, entry)
	}
	return all
}

var errBadLine = errors.New("line is not key:secret, key:secret:role or, where keys have scopes, key:secret:role:scopes")

// Bootstrap puts the keys of a file: key:secret, key:secret:role or key:secret:role:scope,... a line. A bad line ends the reading; the keys
// before it stay.
func (k *Keys) Bootstrap(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the API key file: %w", err)
	}
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for number := 1; scanner.Scan(); number++ {
		line := strings.TrimSpace(scanner.Text())
		if line == "" {
			continue
		}
		if err := k.PutLine(line); err != nil {
			return fmt.Errorf("read API key file %s, line %d: %w", path, number, err)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read the API key file: %w", err)
	}
	return nil
}

// PutLine puts the key of one such line.
func (k *Keys) PutLine(line string) error {
	parts := strings.Split(line, ":")
	role := Administrator
	if len(parts) >= 3 {
		role = Role(parts[2])
	}
	var scopes []string
	if len(parts) == 4 && k.scoped {
		scopes, parts = bootstrapScopes(parts[3]), parts[:3]
	}
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" ||
		(role != Administrator && role != Viewer && role != Publisher) {
		return errBadLine
	}
	return k.Put(parts[0], parts[1], role, scopes)
}
