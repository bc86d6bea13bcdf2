package broker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/disk"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

// compactAfter is by how many messages a journal may be longer than what it stands for.
const compactAfter = 1000

// journal is the retained messages on disk: one message a line, the last of a topic counts.
type journal struct {
	path  string
	file  *os.File
	lines int
}

// openJournal reads what an earlier run has kept. A last line that is not whole is left out: its node was killed.
func openJournal(path string) (*journal, []*session.Message, error) {
	var kept []*session.Message
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("read the retained messages: %w", err)
	}
	reader := bufio.NewReader(bytes.NewReader(data))
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		m := &session.Message{}
		if err := errors.Join(err, json.Unmarshal(line, m)); err != nil {
			return nil, nil, fmt.Errorf("read the retained messages: %w", err)
		}
		kept = append(kept, m)
	}
	return &journal{path: path}, kept, nil
}

// rewrite makes the journal as short as it can be.
func (j *journal) rewrite(all map[string]*session.Message) error {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	for _, m := range all {
		if err := encoder.Encode(m); err != nil {
			return fmt.Errorf("encode a retained message: %w", err)
		}
	}
	if err := j.close(); err != nil {
		return err
	}
	if err := disk.Replace(j.path, buffer.Bytes()); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Clean(j.path), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep retained messages: %w", err)
	}
	j.file, j.lines = file, len(all)
	return nil
}

// add keeps a message, which is in all already.
func (j *journal) add(m *session.Message, all map[string]*session.Message) error {
	if j.lines > len(all)+compactAfter {
		return j.rewrite(all)
	}
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a retained message: %w", err)
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("keep a retained message: %w", err)
	}
	j.lines++
	return nil
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	if err != nil {
		return fmt.Errorf("close the retained messages: %w", err)
	}
	return nil
}
