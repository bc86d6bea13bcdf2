package gauge

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Process is a process that is measured.
type Process struct {
	proc procfs.Proc
	fs   procfs.FS
}

// NewProcess returns the process of an id.
func NewProcess(pid int) (*Process, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	proc, err := fs.Proc(pid)
	if err != nil {
		return nil, fmt.Errorf("find process %d: %w", pid, err)
	}
	return &Process{proc: proc, fs: fs}, nil
}

// Memory is the resident memory now and the most that it has been since the process started, in bytes.
func (p *Process) Memory() (now, peak uint64, err error) {
	status, err := p.proc.NewStatus()
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory of process %d: %w", p.proc.PID, err)
	}
	return status.VmRSS, status.VmHWM, nil
}

// CPU is the processor time that it has used since it started.
func (p *Process) CPU() (time.Duration, error) {
	stat, err := p.proc.Stat()
	if err != nil {
		return 0, fmt.Errorf("read the processor time of process %d: %w", p.proc.PID, err)
	}
	return time.Duration(stat.CPUTime() * float64(time.Second)), nil
}

// established is TCP_ESTABLISHED in /proc/net/tcp.
const established = 1

// Connections is how many TCP connections of the process are established: those that lead to a port in a network, and all.
func (p *Process) Connections(network netip.Prefix, port uint64) (there, all int, err error) {
	targets, err := p.proc.FileDescriptorTargets()
	if err != nil {
		return 0, 0, fmt.Errorf("list the open files of process %d: %w", p.proc.PID, err)
	}
	own := map[uint64]bool{}
	for _, target := range targets {
		text, isSocket := strings.CutPrefix(target, "socket:[")
		if inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64); isSocket && err == nil {
			own[inode] = true
		}
	}
	for _, read := range []func() (procfs.NetTCP, error){p.fs.NetTCP, p.fs.NetTCP6} { //nolint:staticcheck // It is read once a window: netlink is not worth a dependency.
		lines, err := read()
		if err != nil {
			return 0, 0, fmt.Errorf("list the connections of process %d: %w", p.proc.PID, err)
		}
		for _, line := range lines {
			if line.St != established || !own[line.Inode] {
				continue
			}
			all++
			remote, ok := netip.AddrFromSlice(line.RemAddr)
			if ok && network.Contains(remote.Unmap()) && line.RemPort == port {
				there++
			}
		}
	}
	return there, all, nil
}
