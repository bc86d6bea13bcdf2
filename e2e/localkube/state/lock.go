package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

// lockFile takes an exclusive lock that ends with the process, waiting for it until the context ends.
func lockFile(ctx context.Context, path string, mode os.FileMode) (release func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, mode)
	if err != nil {
		return nil, fmt.Errorf("open the lock %s: %w", path, err)
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another command is at work on %s: %w", path, ctx.Err()), file.Close())
		case <-ticker.C:
		}
	}
}

// Lock keeps other `up` and `down` commands away from the directory until release is called or the process ends. The
// directory must exist.
func (d Dir) Lock(ctx context.Context) (release func(), err error) {
	return lockFile(ctx, d.Path(".lock"), 0o600)
}

// Registry is the machine's register of networks in use by local clusters: a directory with a file a slot.
type Registry string

// DefaultRegistry is shared by all users of the machine's temporary directory.
func DefaultRegistry() Registry { return Registry(filepath.Join(os.TempDir(), "local-clusters")) }

// claim is the content of a slot's file.
type claim struct {
	Dir    Dir    `json:"dir"`
	ID     string `json:"id"`
	BootID string `json:"bootID"`
}

func (r Registry) slotFile(slot int) string {
	return filepath.Join(string(r), "slot-"+strconv.Itoa(slot)+".json")
}

// ErrExhausted says that all networks are taken.
var ErrExhausted = errors.New("all networks for local clusters are in use")

// Claim finds a slot that no living cluster has and calls commit with it, which is to write the state that makes the
// claim last; other claims wait until then. A claim is dropped once its cluster's state is gone or of an earlier boot.
func (r Registry) Claim(ctx context.Context, dir Dir, s *State, commit func() error) error {
	if err := os.MkdirAll(string(r), 0o777); err != nil { //nolint:gosec // all users share it
		return fmt.Errorf("create the register of networks: %w", err)
	}
	// Best effort: other users of the machine may register too.
	_ = os.Chmod(string(r), 0o777|os.ModeSticky)
	release, err := lockFile(ctx, filepath.Join(string(r), "lock"), 0o666)
	if err != nil {
		return err
	}
	defer release()
	_ = os.Chmod(filepath.Join(string(r), "lock"), 0o666) //nolint:gosec // all users share it
	for slot := range network.Slots {
		if r.taken(slot, s.BootID) || !bindable(network.Plan{Slot: slot}) {
			continue
		}
		s.Slot = slot
		raw, err := json.Marshal(claim{Dir: dir, ID: s.ID, BootID: s.BootID})
		if err != nil {
			return fmt.Errorf("encode the claim: %w", err)
		}
		if err := WriteFileAtomic(r.slotFile(slot), raw, 0o644); err != nil {
			continue // another user's stale claim, which only that user may remove
		}
		return commit()
	}
	return fmt.Errorf("%w (%d of %d); stop one with `cluster down --dir DIR`, %s says which directories have one",
		ErrExhausted, network.Slots, network.Slots, r)
}

// Release gives the slot back if it is still the cluster's.
func (r Registry) Release(s *State) error {
	if r.read(s.Slot).ID != s.ID {
		return nil
	}
	if err := os.Remove(r.slotFile(s.Slot)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("give the network back: %w", err)
	}
	return nil
}

func (r Registry) read(slot int) claim {
	var c claim
	raw, err := os.ReadFile(r.slotFile(slot))
	if err != nil || json.Unmarshal(raw, &c) != nil {
		return claim{}
	}
	return c
}

func (r Registry) taken(slot int, bootID string) bool {
	c := r.read(slot)
	if c.ID == "" || c.BootID != bootID {
		return false
	}
	s, err := c.Dir.Load()
	if err != nil {
		// A directory of another user cannot be read: believe the claim.
		return errors.Is(err, os.ErrPermission)
	}
	return s.ID == c.ID
}

// bindable reports whether nothing listens at the usual ports of the slot's control address: a cluster whose directory
// was removed under it may still run.
func bindable(plan network.Plan) bool {
	control, err := network.ToLoopback(plan.Control())
	if err != nil {
		return false
	}
	ports := PreferredPorts()
	for _, port := range []uint16{ports.EtcdClient, ports.APIServer, ports.Kubelet} {
		// What listens on all addresses answers everywhere in 127.0.0.0/8; it is no cluster of ours.
		if answers(control, port) && !answers(unusedLoopback(), port) {
			return false
		}
	}
	return true
}

// unusedLoopback is outside every address plan.
func unusedLoopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 254, 254, 254}) }

func answers(address netip.Addr, port uint16) bool {
	connection, err := net.DialTimeout("tcp", netip.AddrPortFrom(address, port).String(), time.Second)
	if err != nil {
		return false
	}
	_ = connection.Close()
	return true
}

// PreferredPorts are the customary ports.
func PreferredPorts() Ports {
	return Ports{
		EtcdClient: 2379, EtcdPeer: 2380, APIServer: 6443, ControllerManager: 10257, Scheduler: 10259,
		Kubelet: 10250, HTTPProxy: 3128, DNS: 5353,
	}
}

// ChoosePorts picks free ports at the control address: the customary ones, or others where something on the machine
// listens on all addresses.
func ChoosePorts(control netip.Addr) (Ports, error) {
	ports := PreferredPorts()
	for _, port := range []*uint16{
		&ports.EtcdClient, &ports.EtcdPeer, &ports.APIServer, &ports.ControllerManager, &ports.Scheduler,
		&ports.Kubelet, &ports.HTTPProxy, &ports.DNS,
	} {
		free, err := freePort(control, *port)
		if err != nil {
			return Ports{}, err
		}
		*port = free
	}
	return ports, nil
}

func freePort(control netip.Addr, preferred uint16) (uint16, error) {
	for _, port := range []uint16{preferred, 0} {
		listener, err := net.Listen("tcp", netip.AddrPortFrom(control, port).String())
		if err != nil {
			continue
		}
		chosen := listener.Addr().(*net.TCPAddr).AddrPort().Port()
		packets, packetErr := net.ListenPacket("udp", netip.AddrPortFrom(control, chosen).String())
		if packetErr == nil {
			packetErr = packets.Close()
		}
		if err := listener.Close(); err != nil || packetErr != nil {
			continue
		}
		return chosen, nil
	}
	return 0, fmt.Errorf("no free port at %s: something else uses that address", control)
}
