package spawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
)

// ContainerEnv is the environment variable that holds the id of the container a process belongs to.
const ContainerEnv = "LOCAL_CONTAINER_ID"

// sweepTimeout bounds the search for processes that a container leaves behind.
const sweepTimeout = 10 * time.Second

// Spawner starts processes from one thread that lives as long as it does: the kernel sends a process its parent's
// death signal when the thread that started it ends.
type Spawner struct {
	requests chan request
	done     chan struct{}
	running  sync.WaitGroup
}

type request struct {
	command *exec.Cmd
	result  chan error
}

// New returns a Spawner; Close ends it.
func New() *Spawner {
	s := &Spawner{requests: make(chan request), done: make(chan struct{})}
	go s.loop()
	return s
}

func (s *Spawner) loop() {
	// Never unlocked: the thread ends with the goroutine.
	runtime.LockOSThread()
	for {
		select {
		case r := <-s.requests:
			r.result <- r.command.Start()
		case <-s.done:
			return
		}
	}
}

// Close waits for all processes, which the caller has ended, and stops the Spawner.
func (s *Spawner) Close() {
	s.running.Wait()
	close(s.done)
}

// Spec says what to run.
type Spec struct {
	// ContainerID is put into the environment.
	ContainerID string
	// Args are the program, which must be a path, and its arguments.
	Args []string
	// Env is the whole environment, without the container's id.
	Env []string
	// Dir is the working directory.
	Dir string
	// Stdout and Stderr receive the output; they are closed in this process once the program has started.
	Stdout, Stderr *os.File
}

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code, or 128 + Signal as a shell tells it.
	Code int
	// Signal is the signal that ended it, 0 for none.
	Signal syscall.Signal
	// At is when it ended.
	At time.Time
}

// Process is a started process group.
type Process struct {
	// ID is the main process.
	ID proc.Identity
	// StartedAt is when it was started.
	StartedAt time.Time

	containerID string
	done        chan struct{}
	exit        Exit

	mu sync.Mutex
	// ended is set when the group's number may soon be another's.
	ended bool
}

// Start runs the program. The error says what is wrong with it in the words of the operating system.
func (s *Spawner) Start(spec Spec) (*Process, error) {
	defer func() {
		_ = spec.Stdout.Close()
		_ = spec.Stderr.Close()
	}()
	command := &exec.Cmd{
		Path: spec.Args[0], Args: spec.Args, Dir: spec.Dir,
		Env:    append(append([]string{}, spec.Env...), ContainerEnv+"="+spec.ContainerID),
		Stdout: spec.Stdout, Stderr: spec.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	r := request{command: command, result: make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-s.done:
		return nil, errors.New("the node agent is shutting down")
	}
	if err := <-r.result; err != nil {
		return nil, err
	}
	p := &Process{StartedAt: time.Now(), containerID: spec.ContainerID, done: make(chan struct{})}
	id, err := proc.Identify(command.Process.Pid)
	if err != nil {
		// It cannot be gone: it has not been waited for.
		return nil, errors.Join(fmt.Errorf("identify the new process: %w", err), command.Process.Kill(), command.Wait())
	}
	p.ID = id
	s.running.Go(func() { p.wait(command) })
	return p, nil
}

func (p *Process) wait(command *exec.Cmd) {
	// The group is killed before the main process is waited for: until then nobody else can be given its number.
	for {
		err := unix.Waitid(unix.P_PID, p.ID.PID, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	ended := time.Now()
	p.mu.Lock()
	_ = p.ID.SignalGroup(syscall.SIGKILL)
	p.ended = true
	p.mu.Unlock()
	err := command.Wait()
	p.exit = exitOf(command.ProcessState, err, ended)
	ctx, cancel := context.WithTimeout(context.Background(), sweepTimeout)
	defer cancel()
	_, _ = proc.KillByEnv(ctx, ContainerEnv, p.containerID)
	close(p.done)
}

func exitOf(state *os.ProcessState, err error, at time.Time) Exit {
	exit := Exit{At: at}
	if state == nil {
		exit.Code = 255
		return exit
	}
	exit.Code = state.ExitCode()
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		exit.Signal = status.Signal()
		exit.Code = 128 + int(status.Signal())
	} else if err != nil && exit.Code == 0 {
		exit.Code = 255
	}
	return exit
}

// Done is closed when the main process has ended and the others of the container have been killed.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit says how the main process ended; it may be called once Done is closed.
func (p *Process) Exit() Exit { return p.exit }

// Signal sends the signal to the main process.
func (p *Process) Signal(signal syscall.Signal) error { return p.ID.Signal(signal) }

// SignalGroup sends the signal to all processes of the container's group.
func (p *Process) SignalGroup(signal syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return proc.ErrGone
	}
	return p.ID.SignalGroup(signal)
}

// outputLimitBytes is what Run returns of the program's output at most.
const outputLimitBytes = 10 << 10

// Run runs a program to its end, as exec probes and hooks do, and returns its output, cut to 10 KiB, and its exit code.
// When the context ends first, the program and what it started are killed and the context's error is returned.
func (s *Spawner) Run(ctx context.Context, spec Spec) (output string, code int, err error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return "", 0, fmt.Errorf("make a pipe: %w", err)
	}
	defer func() { _ = reader.Close() }()
	spec.Stdout, spec.Stderr = writer, writer
	process, err := s.Start(spec)
	if err != nil {
		return "", 0, err
	}
	collected := make(chan string, 1)
	go func() { collected <- collect(reader) }()
	select {
	case <-process.Done():
	case <-ctx.Done():
		_ = process.SignalGroup(syscall.SIGKILL)
		<-process.Done()
		err = ctx.Err()
	}
	// All writers are gone, unless one could not be found.
	_ = reader.SetReadDeadline(time.Now().Add(time.Second))
	return <-collected, process.Exit().Code, err
}

// collect reads to the end and keeps the beginning.
func collect(reader *os.File) string {
	var kept []byte
	buffer := make([]byte, 4096)
	for {
		n, err := reader.Read(buffer)
		kept = append(kept, buffer[:min(n, outputLimitBytes-len(kept))]...)
		if err != nil {
			return string(kept)
		}
	}
}
