package containerlog

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

const (
	// maxFileBytes is when a log file is put aside; its predecessor is dropped then.
	maxFileBytes = 16 << 20
	// lineBytes is the longest piece of a line written at once.
	lineBytes = 16 << 10
	// drainTimeout is how long to wait for output once the container has ended.
	drainTimeout = 2 * time.Second
	timeFormat   = "2006-01-02T15:04:05.000000000Z07:00"
)

// Path is the log file of a container's n-th start, counted from 0. dir is the pod's log directory.
func Path(dir, container string, start int32) string {
	return filepath.Join(dir, container, strconv.Itoa(int(start))+".log")
}

// Writer writes the log of one start of a container.
type Writer struct {
	mu      sync.Mutex
	file    *os.File
	path    string
	size    int64
	failed  error
	readers []*os.File
	copies  sync.WaitGroup
}

// Create opens the log of a start and removes that of the start before the last.
func Create(dir, container string, start int32) (*Writer, error) {
	path := Path(dir, container, start)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the log directory: %w", err)
	}
	for _, old := range []string{Path(dir, container, start-2), Path(dir, container, start-2) + ".1"} {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("remove an old log: %w", err)
		}
	}
	w := &Writer{path: path}
	if err := w.open(); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Writer) open() error {
	file, err := os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open the log: %w", err), file.Close())
	}
	w.file, w.size = file, info.Size()
	return nil
}

// Pipe returns the file that a process is to write the stream ("stdout" or "stderr") to.
func (w *Writer) Pipe(stream string) (*os.File, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	w.readers = append(w.readers, reader)
	w.copies.Go(func() { w.copy(reader, stream) })
	return writer, nil
}

func (w *Writer) copy(from *os.File, stream string) {
	lines := bufio.NewReaderSize(from, lineBytes)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			w.write(stream, line)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// write adds a line, or a piece of one that does not end with a newline.
func (w *Writer) write(stream string, line []byte) {
	tag := "F"
	if line[len(line)-1] != '\n' {
		tag = "P"
	}
	entry := make([]byte, 0, len(line)+len(timeFormat)+len(stream)+5)
	entry = time.Now().UTC().AppendFormat(entry, timeFormat)
	entry = append(append(append(append(append(entry, ' '), stream...), ' '), tag...), ' ')
	entry = append(entry, line...)
	if tag == "P" {
		entry = append(entry, '\n')
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return // a full disk must not stop the container
	}
	if w.size+int64(len(entry)) > maxFileBytes {
		w.failed = w.rotate()
	}
	if w.failed == nil {
		n, err := w.file.Write(entry)
		w.size += int64(n)
		w.failed = err
	}
}

func (w *Writer) rotate() error {
	if err := w.file.Close(); err != nil {
		return err
	}
	if err := os.Rename(w.path, w.path+".1"); err != nil {
		return err
	}
	return w.open()
}

// Close waits a moment for output that is under way and closes the log. It returns the first error of writing, if
// there was one. The container must have ended.
func (w *Writer) Close() error {
	for _, reader := range w.readers {
		// A process that still holds the other end is no longer part of the container.
		if err := reader.SetReadDeadline(time.Now().Add(drainTimeout)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
			w.failed = errors.Join(w.failed, err)
		}
	}
	w.copies.Wait()
	for _, reader := range w.readers {
		_ = reader.Close()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.file.Close(); err != nil && w.failed == nil && !errors.Is(err, os.ErrClosed) {
		w.failed = err
	}
	return w.failed
}
