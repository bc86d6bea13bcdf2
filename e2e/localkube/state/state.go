package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
)

// ClusterEnv is the environment variable that every process of a cluster carries, pods' processes included. Its value
// is State.ID.
const ClusterEnv = "LOCAL_CLUSTER_ID"

// NodeName is the name of the one Node of a local cluster.
const NodeName = "local"

// ErrNotUp says that a directory holds no cluster.
var ErrNotUp = errors.New("no cluster is up")

// Ports are the TCP ports of the cluster's own programs, all at the control address.
type Ports struct {
	EtcdClient        uint16 `json:"etcdClient"`
	EtcdPeer          uint16 `json:"etcdPeer"`
	APIServer         uint16 `json:"apiServer"`
	ControllerManager uint16 `json:"controllerManager"`
	Scheduler         uint16 `json:"scheduler"`
	// Kubelet is the node agent's HTTPS port for logs and pod control.
	Kubelet uint16 `json:"kubelet"`
	// HTTPProxy leads programs from addresses of the pod and Service networks to loopback addresses.
	HTTPProxy uint16 `json:"httpProxy"`
	// DNS is served over UDP and TCP.
	DNS uint16 `json:"dns"`
}

// ImageRow maps images to the command that is run in their place.
type ImageRow struct {
	// Pattern is matched against the image as the pod names it, as by path.Match, except that a `*` at its end
	// matches anything, slashes included.
	Pattern string `json:"pattern"`
	// Command is given to /bin/sh.
	Command string `json:"command"`
}

// Node is a real node: one that runs kubelet, in namespaces of its own.
type Node struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
}

// State is what is written to cluster.json.
type State struct {
	// ID is unique to this cluster.
	ID string `json:"id"`
	// BootID tells whether the machine was restarted since.
	BootID  string    `json:"bootID"`
	Created time.Time `json:"created"`
	// Slot is the cluster's place in the address plan.
	Slot  int   `json:"slot"`
	Ports Ports `json:"ports"`
	// ClusterBinary is the program that runs the node agent; BinDir of it holds the other programs.
	ClusterBinary string `json:"clusterBinary"`
	// KubeBinary is the multi-call program of the control plane.
	KubeBinary string `json:"kubeBinary"`
	// Images is the user's part of the image table; the first row that matches wins, and it comes before the
	// built-in rows.
	Images []ImageRow `json:"images"`
	// RealNodes run the pods. When there are none, the node agent does, under NodeName.
	RealNodes []Node `json:"realNodes,omitempty"`
	// Processes are the cluster's components by name.
	Processes map[string]proc.Identity `json:"processes"`
}

// Plan returns the cluster's address plan.
func (s *State) Plan() network.Plan { return network.Plan{Slot: s.Slot} }

// ControlAddress is the address at which the cluster's own programs listen: a loopback address, or where real nodes are to
// reach them, the one that the API knows.
func (s *State) ControlAddress() netip.Addr {
	if len(s.RealNodes) > 0 {
		return s.Plan().Control()
	}
	address, err := network.ToLoopback(s.Plan().Control())
	if err != nil {
		// Control is 10.x.y.z by construction.
		panic(err)
	}
	return address
}

// Reach is where on this machine an address of the API is reached: pods and Services of real nodes have it themselves, those
// of the node agent its loopback twin.
func (s *State) Reach(address string) (netip.Addr, error) {
	if len(s.RealNodes) == 0 {
		return network.LoopbackOf(address)
	}
	parsed, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("parse an address: %w", err)
	}
	return parsed, nil
}

// Endpoint is the control address with one of the ports, as host:port.
func (s *State) Endpoint(port uint16) string {
	return netip.AddrPortFrom(s.ControlAddress(), port).String()
}

// Dir is a cluster's directory, an absolute path.
type Dir string

// OpenDir returns the directory's absolute form. It need not exist.
func OpenDir(path string) (Dir, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the directory %q: %w", path, err)
	}
	return Dir(absolute), nil
}

// Path joins the directory with the elements.
func (d Dir) Path(elements ...string) string {
	return filepath.Join(append([]string{string(d)}, elements...)...)
}

// StateFile is where the state is kept.
func (d Dir) StateFile() string { return d.Path("cluster.json") }

// AdminKubeconfig is a kubeconfig with all rights.
func (d Dir) AdminKubeconfig() string { return d.Path("admin.kubeconfig") }

// AgentKubeconfig is the node agent's own kubeconfig.
func (d Dir) AgentKubeconfig() string { return d.Path("run", "agent.kubeconfig") }

// Kubeconfig is that of one of the cluster's own programs.
func (d Dir) Kubeconfig(user string) string { return d.Path("run", user+".kubeconfig") }

// PKI returns the path of a key or certificate.
func (d Dir) PKI(name string) string { return d.Path("pki", name) }

// Pods holds a directory for each pod on the node, named by UID.
func (d Dir) Pods() string { return d.Path("pods") }

// Volumes holds a directory for each volume that was made for a claim.
func (d Dir) Volumes() string { return d.Path("volumes") }

// PodLogs holds a directory for each pod, NAMESPACE_NAME_UID.
func (d Dir) PodLogs() string { return d.Path("logs", "pods") }

// AuditLog is where kube-apiserver writes the requests of service accounts.
func (d Dir) AuditLog() string { return d.Path("audit.log") }

// ComponentLog is the output of a component.
func (d Dir) ComponentLog(component string) string { return d.Path("logs", component+".log") }

// Load reads the state. It returns an error that wraps ErrNotUp when there is none.
func (d Dir) Load() (*State, error) {
	raw, err := os.ReadFile(d.StateFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s; start one with `cluster up --dir %s`", ErrNotUp, d, d)
	}
	if err != nil {
		return nil, fmt.Errorf("read the cluster's state: %w", err)
	}
	s := &State{}
	if err := json.Unmarshal(raw, s); err != nil || s.ID == "" {
		return nil, fmt.Errorf("%s is not the state of a local cluster (%w); choose another directory, or remove it if it is one of yours",
			d.StateFile(), errors.Join(err, errIDMissing(s)))
	}
	return s, nil
}

func errIDMissing(s *State) error {
	if s.ID == "" {
		return errors.New("it has no id")
	}
	return nil
}

// Save writes the state so that a reader sees either the old or the new one.
func (d Dir) Save(s *State) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the cluster's state: %w", err)
	}
	if err := WriteFileAtomic(d.StateFile(), append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the cluster's state: %w", err)
	}
	return nil
}

// WriteFileAtomic writes a temporary file beside the file and renames it.
func WriteFileAtomic(path string, content []byte, mode os.FileMode) error {
	temporary := path + ".tmp" + strconv.Itoa(os.Getpid())
	if err := os.WriteFile(temporary, content, mode); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}
