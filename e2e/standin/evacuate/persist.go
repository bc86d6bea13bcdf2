package evacuate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// saved is the file that brings an evacuation back after a restart. Recipients and the health check wait are not in
// it.
type saved struct {
	ServerReference *string `json:"server_reference"`
	ConnEvictRate   *int    `json:"conn_evict_rate"`
	SessEvictRate   *int    `json:"sess_evict_rate"`
	WaitTakeover    *int    `json:"wait_takeover"` // seconds
}

func evacuationFile(dir string) string { return filepath.Join(dir, ".evacuation") }

func save(dir string, o Options) error {
	seconds := int(o.WaitTakeover / time.Second)
	s := saved{ConnEvictRate: &o.ConnRate, SessEvictRate: &o.SessRate, WaitTakeover: &seconds}
	if o.ServerReference != "" {
		s.ServerReference = &o.ServerReference
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the evacuation: %w", err)
	}
	if err := os.WriteFile(evacuationFile(dir), data, 0o600); err != nil {
		return fmt.Errorf("save the evacuation: %w", err)
	}
	return nil
}

func clearSaved(dir string) error {
	if err := os.Remove(evacuationFile(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the saved evacuation: %w", err)
	}
	return nil
}

// load reports whether an evacuation was running when the node stopped. A file that cannot be understood counts as one
// with the defaults.
func load(dir string) (Options, bool, error) {
	o := Defaults()
	data, err := os.ReadFile(evacuationFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return o, false, nil
	}
	if err != nil {
		return o, false, fmt.Errorf("read the saved evacuation: %w", err)
	}
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return o, true, nil //nolint:nilerr // as said above
	}
	if s.ConnEvictRate != nil && *s.ConnEvictRate > 0 {
		o.ConnRate = *s.ConnEvictRate
	}
	if s.SessEvictRate != nil && *s.SessEvictRate > 0 {
		o.SessRate = *s.SessEvictRate
	}
	if s.WaitTakeover != nil && *s.WaitTakeover >= 0 {
		o.WaitTakeover = time.Duration(*s.WaitTakeover) * time.Second
	}
	if s.ServerReference != nil {
		o.ServerReference = *s.ServerReference
	}
	return o, true, nil
}
