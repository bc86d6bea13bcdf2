package box

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// The hidden commands of the program that starts boxes; each takes a Spec as JSON.
const (
	JoinCommand = "box-join"
	InitCommand = "box-init"
)

// Spec says what runs in a box.
type Spec struct {
	// Helper is the program that has the hidden commands.
	Helper string `json:"helper"`
	// Name is the host name.
	Name string `json:"name"`
	// Cgroup is the cgroup to make, below that of the process that starts the box.
	Cgroup string `json:"cgroup"`
	// Dir is a directory that is found at Home in the box; empty for none.
	Dir string `json:"dir,omitempty"`
	// Node makes the file system of the machine unwritable, as a kubelet and its friends are not to leave anything in it:
	// what they write goes into the directory.
	Node string `json:"node,omitempty"`
	// Command is the program with its arguments.
	Command []string `json:"command"`
}

// Home is where the directory of a box is found in it.
const Home = "/mnt"

// startLimit bounds the time that a box's namespaces and mounts take to be made; milliseconds are usual.
const startLimit = 20 * time.Second

// Box is a box that was started.
type Box struct {
	joiner *exec.Cmd
	// PID is the first process in it, as seen from outside.
	PID   int
	ended chan struct{}
	err   error
}

// Streams are the standard streams of a box's program.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Env      []string
}

// Start starts a box. It returns when the box's program was started.
func Start(ctx context.Context, spec Spec, streams Streams) (*Box, error) {
	encoded, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encode the box %s: %w", spec.Name, err)
	}
	said, says, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the box %s: %w", spec.Name, err)
	}
	defer func() { _ = said.Close() }()                                                                    // It was only read.
	b := &Box{joiner: exec.Command(spec.Helper, JoinCommand, string(encoded)), ended: make(chan struct{})} //nolint:gosec // our own program
	b.joiner.Stdin, b.joiner.Stdout, b.joiner.Stderr, b.joiner.Env = streams.In, streams.Out, streams.Err, streams.Env
	b.joiner.ExtraFiles = []*os.File{says}
	b.joiner.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go b.run(started)
	err = <-started
	_ = says.Close() // The program that was started has it, too.
	if err != nil {
		return nil, fmt.Errorf("start the box %s: %w", spec.Name, err)
	}
	if err := b.await(ctx, said); err != nil {
		b.Kill()
		<-b.ended
		return nil, fmt.Errorf("start the box %s: %w", spec.Name, err)
	}
	return b, nil
}

// run starts the joiner and waits for it. The kernel ends the joiner with the thread that started it, so the thread is kept.
func (b *Box) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := b.joiner.Start()
	started <- err
	if err != nil {
		return
	}
	b.err = b.joiner.Wait()
	close(b.ended)
}

// report is what the joiner and the first process of a box say, in either order.
type report struct {
	PID     int  `json:"pid,omitempty"`     // The first process, as the joiner sees it.
	Running bool `json:"running,omitempty"` // The program was started.
}

// await waits for both reports.
func (b *Box) await(ctx context.Context, said *os.File) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("it was not made within %s", startLimit))
	defer cancel()
	result := make(chan error, 1)
	go func() {
		var told report
		for decoder := json.NewDecoder(said); told.PID == 0 || !told.Running; {
			if err := decoder.Decode(&told); err != nil {
				result <- fmt.Errorf("it ended before its program was started: %w", err)
				return
			}
		}
		b.PID = told.PID
		result <- nil
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Signal sends a signal to the box's program.
func (b *Box) Signal(signal os.Signal) error {
	if err := b.joiner.Process.Signal(signal); err != nil {
		return fmt.Errorf("send %s to a box: %w", signal, err)
	}
	return nil
}

// Kill ends the box with all that is in it. A box that is frozen ends when it is thawed.
func (b *Box) Kill() { _ = b.joiner.Process.Kill() } // It may have ended already.

// Ended is closed when the box has ended.
func (b *Box) Ended() <-chan struct{} { return b.ended }

// Wait waits for the end of the box and returns the exit code of its program. An error is one of the box.
func (b *Box) Wait() (int, error) {
	<-b.ended
	var exit *exec.ExitError
	switch {
	case b.err == nil:
		return 0, nil
	case errors.As(b.err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	default:
		return -1, fmt.Errorf("wait for a box: %w", b.err)
	}
}
