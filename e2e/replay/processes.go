package replay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/storage"
)

// Processes is Control over nodes that are processes of this machine.
type Processes struct {
	// Dir holds a directory for each node.
	Dir string
	// Command makes the command of a node that stores its data in dir and looks for the nodes at the seeds' addresses.
	Command func(node int, dir string, seeds []int) (*exec.Cmd, error)
	// Log gets what the nodes print; nil: nobody.
	Log io.Writer
	// StopTimeout is how long a node may take to stop in good order. Default 15 s.
	StopTimeout time.Duration

	mu       sync.Mutex
	running  map[int]*process
	settings map[int]Settings
}

type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (p *Processes) get(node int) *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running[node]
}

// Start runs a node.
func (p *Processes) Start(node int, fresh bool, seeds []int) error {
	if p.get(node) != nil {
		return fmt.Errorf("node %d is running already", node)
	}
	dir := filepath.Join(p.Dir, fmt.Sprintf("node%d", node))
	if fresh {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("clear the data of node %d: %w", node, err)
		}
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make the directory of node %d: %w", node, err)
	}
	cmd, err := p.Command(node, dir, seeds)
	if err != nil {
		return err
	}
	p.mu.Lock()
	settings := p.settings[node]
	p.mu.Unlock()
	if err := settings.add(cmd, dir); err != nil {
		return fmt.Errorf("configure node %d: %w", node, err)
	}
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %d: %w", node, err)
	}
	proc := &process{cmd: cmd, done: make(chan struct{})}
	p.mu.Lock()
	if p.running == nil {
		p.running = map[int]*process{}
	}
	p.running[node] = proc
	p.mu.Unlock()
	go func() {
		_ = cmd.Wait() // how it ended is its log's business
		p.mu.Lock()
		if p.running[node] == proc {
			delete(p.running, node)
		}
		p.mu.Unlock()
		close(proc.done)
	}()
	return nil
}

// Configure sets what a node has besides its usual configuration from its next start on.
func (p *Processes) Configure(node int, settings Settings) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.settings == nil {
		p.settings = map[int]Settings{}
	}
	p.settings[node] = settings
}

// add writes the settings where StandIn's command looks for them.
func (s Settings) add(cmd *exec.Cmd, dir string) error {
	if len(s.Environ) > 0 {
		if cmd.Env == nil {
			cmd.Env = os.Environ()
		}
		cmd.Env = append(cmd.Env, s.Environ...)
	}
	if s.Keys != "" {
		if err := os.WriteFile(filepath.Join(dir, keyFile), []byte(s.Keys), 0o600); err != nil {
			return fmt.Errorf("write the API keys: %w", err)
		}
	}
	if err := s.addSite(filepath.Join(dir, "data")); err != nil {
		return fmt.Errorf("write the site: %w", err)
	}
	if s.Config == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(s.Config), 0o600); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// addSite gives a node that has no site yet the wanted one.
func (s Settings) addSite(data string) error {
	path := filepath.Join(data, storage.SiteFile)
	if _, err := os.Stat(path); s.Site == "" || err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(s.Site), 0o600)
}

// Running reports whether a node's process is there.
func (p *Processes) Running(node int) bool { return p.get(node) != nil }

// Write puts a file into a node's directory.
func (p *Processes) Write(node int, name, text string) error {
	if err := os.WriteFile(filepath.Join(p.Dir, fmt.Sprintf("node%d", node), name), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write a file of node %d: %w", node, err)
	}
	return nil
}

// File reads a file of a node's data directory.
func (p *Processes) File(node int, name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(p.Dir, fmt.Sprintf("node%d", node), "data", name))
	if err != nil {
		return nil, fmt.Errorf("read a file of node %d: %w", node, err)
	}
	return data, nil
}

// Stop ends a node in good order; one that does not run is no error.
func (p *Processes) Stop(node int) error {
	proc := p.get(node)
	if proc == nil {
		return nil
	}
	limit := p.StopTimeout
	if limit == 0 {
		limit = 15 * time.Second
	}
	if err := errors.Join(p.signal(proc, syscall.SIGCONT), p.signal(proc, syscall.SIGTERM)); err != nil {
		return err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-proc.done:
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("node %d did not stop within %s", node, limit), p.Kill(node))
	}
}

// Kill ends a node at once.
func (p *Processes) Kill(node int) error {
	proc := p.get(node)
	if proc == nil {
		return nil
	}
	if err := p.signal(proc, syscall.SIGKILL); err != nil {
		return err
	}
	<-proc.done
	return nil
}

// Freeze stops a node from running. It returns when the whole process has stopped: on a busy machine its threads may
// run on for a while after the signal was sent.
func (p *Processes) Freeze(node int) error {
	proc := p.get(node)
	if err := p.signal(proc, syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		err := unix.Waitid(unix.P_PID, proc.cmd.Process.Pid, nil, unix.WSTOPPED, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait until node %d has stopped: %w", node, err)
		}
		return nil
	}
}

// Thaw lets it go on.
func (p *Processes) Thaw(node int) error { return p.signal(p.get(node), syscall.SIGCONT) }

func (p *Processes) signal(proc *process, sig syscall.Signal) error {
	if proc == nil {
		return errors.New("node is not running")
	}
	if err := proc.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal the node: %w", err)
	}
	return nil
}

// Close kills whatever runs.
func (p *Processes) Close() error {
	p.mu.Lock()
	nodes := make([]int, 0, len(p.running))
	for node := range p.running {
		nodes = append(nodes, node)
	}
	p.mu.Unlock()
	var err error
	for _, node := range nodes {
		err = errors.Join(err, p.Kill(node))
	}
	return err
}
