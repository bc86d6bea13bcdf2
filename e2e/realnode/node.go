package realnode

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode/box"
)

// Node is a node of the cluster.
type Node struct {
	// Name is its name in the API, and Address its address.
	Name    string
	Address netip.Addr

	pods     netip.Prefix
	services bool // Packets to Services pass it.
	bin      string
	dir      state.Dir

	mu  sync.Mutex
	box *box.Box
}

// nodeProgram is what the first program of a node is told.
type nodeProgram struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
}

// Start switches the node on. Pods that ran on it when it was switched off are there for kubelet to start again.
func (n *Node) Start(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running() {
		return fmt.Errorf("start %s: it runs already", n.Name)
	}
	if err := n.writeFiles(); err != nil {
		return err
	}
	encoded, err := json.Marshal(nodeProgram{Name: n.Name, Address: n.Address})
	if err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	log, err := os.OpenFile(n.dir.ComponentLog(n.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", n.Name, err)
	}
	defer func() { _ = log.Close() }() // The program that was started has it, too.
	helper := filepath.Join(n.bin, "cluster")
	n.box, err = box.Start(ctx, box.Spec{
		Helper: helper, Name: n.Name, Cgroup: n.Name, Node: n.Name, Command: []string{helper, NodeCommand, string(encoded)},
	}, box.Streams{Out: log, Err: log, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"}})
	if err != nil {
		return err
	}
	return n.plug()
}

func (n *Node) running() bool {
	if n.box == nil {
		return false
	}
	select {
	case <-n.box.Ended():
		return false
	default:
		return true
	}
}

// SwitchOff ends everything on the node at once, as when it loses power. Its files stay.
func (n *Node) SwitchOff(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.running() {
		return nil
	}
	n.box.Kill()
	if err := box.RemoveCgroup(ctx, n.Name); err != nil {
		return err
	}
	select {
	case <-n.box.Ended():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("switch %s off: %w", n.Name, context.Cause(ctx))
	}
}

// Freeze stops every process of the node where it is.
func (n *Node) Freeze(ctx context.Context) error { return box.Freeze(ctx, n.Name) }

// Thaw undoes Freeze.
func (n *Node) Thaw(ctx context.Context) error { return box.Thaw(ctx, n.Name) }
