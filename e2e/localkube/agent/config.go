package agent

import (
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/images"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// PodsEnv is an environment variable that every process of a pod carries and the cluster's own programs do not. Its
// value is the cluster's ID.
const PodsEnv = "LOCAL_CLUSTER_PODS"

// The environment of containers.
const (
	podAddressEnv = "LOCAL_POD_ADDRESS"
	podRootEnv    = "LOCAL_POD_ROOT"
	dnsAddressEnv = "LOCAL_DNS_ADDRESS"
)

// Config is what an agent needs to know. All fields are required.
type Config struct {
	// Dir is the cluster's directory.
	Dir state.Dir
	// State is the cluster's state; the image table is read from the directory again at every start of a container.
	State *state.State
	// Log takes the agent's own messages.
	Log *slog.Logger
}

func (c *Config) plan() network.Plan { return c.State.Plan() }

func (c *Config) hostIP() string { return c.State.ControlAddress().String() }

// imageTable returns the rows as they are now.
func (c *Config) imageTable() ([]state.ImageRow, error) {
	current, err := c.Dir.Load()
	if err != nil {
		return nil, fmt.Errorf("read the image table: %w", err)
	}
	return append(current.Images, images.Builtin(filepath.Dir(current.ClusterBinary))...), nil
}
