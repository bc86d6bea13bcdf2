package measure

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// Record is a run's time series and figures, as written to a file.
type Record struct {
	// Connected are the connected clients as they count themselves, every 100 ms.
	Connected []load.Sample `json:"connected"`
	// Revisions are the clients of each revision's nodes as the nodes count them.
	Revisions []RevisionSample `json:"revisions"`
	// Figures are what was measured.
	Figures Figures `json:"figures"`
}

// Write writes the record to a file.
func (r *Record) Write(path string) error {
	content, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	if err := state.WriteFileAtomic(path, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	return nil
}

// ReadRecord reads a record that Write has written.
func ReadRecord(path string) (*Record, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	var record Record
	if err := json.Unmarshal(content, &record); err != nil {
		return nil, fmt.Errorf("read the record %s: %w", path, err)
	}
	if len(record.Connected) == 0 || record.Figures.Patched.IsZero() {
		return nil, fmt.Errorf("read the record %s: it has no time series; `cluster demo --record FILE` writes one", path)
	}
	return &record, nil
}
