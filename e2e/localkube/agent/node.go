package agent

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/prometheus/procfs"
	"github.com/virtual-kubelet/virtual-kubelet/node"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

const (
	// leaseSeconds and leaseRenewal are the node's heartbeat.
	leaseSeconds = 40
	leaseRenewal = 10 * time.Second
	maxPods      = 110
	// The node offers at least this much, so that what pods request does not decide whether a small machine runs them:
	// their processes are not limited anyway.
	leastCPUs          = 32
	leastMemoryBytes   = 128 << 30
	ephemeralDiskBytes = 100 << 30
)

// allocatable is what the node offers to pods.
func allocatable() corev1.ResourceList {
	cpus := max(int64(runtime.NumCPU()), leastCPUs)
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(cpus, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(max(machineMemory(), leastMemoryBytes), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(maxPods, resource.DecimalSI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(ephemeralDiskBytes, resource.BinarySI),
	}
}

// machineMemory reads how much memory the machine has; 0 when that is not known.
func machineMemory() int64 {
	machine, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	memory, err := machine.Meminfo()
	if err != nil || memory.MemTotalBytes == nil {
		return 0
	}
	return int64(*memory.MemTotalBytes) //nolint:gosec // No machine has as much.
}

func nodeObject(config *Config, now metav1.Time) *corev1.Node {
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) corev1.NodeCondition {
		return corev1.NodeCondition{
			Type: kind, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now,
		}
	}
	capacity := allocatable()
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: state.NodeName,
			Labels: map[string]string{
				corev1.LabelHostname: state.NodeName, corev1.LabelOSStable: "linux", corev1.LabelArchStable: runtime.GOARCH,
			},
		},
		Status: corev1.NodeStatus{
			Capacity: capacity, Allocatable: capacity,
			Conditions: []corev1.NodeCondition{
				condition(corev1.NodeReady, corev1.ConditionTrue, "AgentReady", "the node agent runs pods as processes"),
				condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "NotWatched", "the node agent does not evict"),
				condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "NotWatched", "the node agent does not evict"),
				condition(corev1.NodePIDPressure, corev1.ConditionFalse, "NotWatched", "the node agent does not evict"),
			},
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: config.hostIP()}, {Type: corev1.NodeHostName, Address: state.NodeName},
			},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{
				KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(config.State.Ports.Kubelet)},
			},
			NodeInfo: corev1.NodeSystemInfo{
				OperatingSystem: "linux", Architecture: runtime.GOARCH, KubeletVersion: "v0.0.0-local-node-agent",
				ContainerRuntimeVersion: "local://processes", OSImage: "local machine", BootID: config.State.BootID,
			},
		},
	}
}

// runNode registers the node and sends its heartbeats until the context ends.
func runNode(ctx context.Context, config *Config, client kubernetes.Interface) error {
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	controller, err := node.NewNodeController(node.NaiveNodeProvider{}, nodeObject(config, metav1.Now()), client.CoreV1().Nodes(),
		node.WithNodeEnableLeaseV1WithRenewInterval(leases, leaseSeconds, leaseRenewal))
	if err != nil {
		return fmt.Errorf("prepare the node's registration: %w", err)
	}
	if err := controller.Run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("keep the node registered: %w", err)
	}
	return nil
}
