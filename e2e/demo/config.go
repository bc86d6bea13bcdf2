package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Config says what is upgraded, how, and under which load. Zero values are the demo's own.
type Config struct {
	// Dir is the directory of the local cluster. One that is up already is used as it is.
	Dir string
	// ClusterBinary is the program that has the node agent's command; `kube` and the operator lie beside it.
	ClusterBinary string
	// Manifests is the directory with the operator's kustomization and samples/emqx.yaml.
	Manifests string
	// Images are rows of the cluster's image table, tried before the built-in ones.
	Images []state.ImageRow
	// Registry keeps clusters apart; empty for the machine's.
	Registry state.Registry
	// Running says that the cluster is up, with the operator's images, and is not to be taken down.
	Running bool
	// Keep leaves the cluster running at the end, without the clients.
	Keep bool

	// Clients is the number of MQTT clients; zero means 3,000.
	Clients int
	// MessagesPerSecond is how many messages are sent a second, by all clients together; zero means 100, less than zero
	// none.
	MessagesPerSecond int
	// ReturnDelay is how long a client that was cut off waits before it comes back; zero is up to a quarter of a second.
	ReturnDelay time.Duration
	// Steady is how long the load runs before the change; zero means three seconds.
	Steady time.Duration
	// UpgradeLimit is how long the upgrade may take before the run is given up; zero means ten minutes.
	UpgradeLimit time.Duration

	// NoLicence has the cluster be what EMQX allows without a key: one node, which is replaced in place. Its data is on a volume.
	NoLicence bool
	// Replicas is the number of core nodes. Zero, here and in the fields below, keeps what the sample has.
	Replicas int32
	// ConnEvictRate and SessEvictRate are connections and sessions a second.
	ConnEvictRate, SessEvictRate int32
	// WaitTakeoverSeconds and InitialDelaySeconds replace what the sample has; nil keeps it.
	WaitTakeoverSeconds, InitialDelaySeconds *int32
	// ReplicaSeconds is how long a node takes to copy a replica of a shard of durable storage; zero means one second. A real one
	// takes as long as there is data.
	ReplicaSeconds float64
	// VolumeSize has the data of each node be on a persistent volume of that size; empty for data that goes with the pod.
	VolumeSize string
	// Patch is the change, a JSON merge patch. Empty means another imagePullPolicy, as in EMQX's documentation.
	Patch string

	// OnPhase is called when a phase of the upgrade begins, in a goroutine of its own. Run waits for it; an error ends
	// the run. Nil is none.
	OnPhase func(ctx context.Context, environment Environment, phase v2beta1.Phase) error
	// Out is what a person sees: a live picture when it is a terminal, else plain lines. Nil is nothing.
	Out io.Writer
	// Record is a file for the time series of the run, which `cluster graph` draws; empty for none.
	Record string
}

// Environment is what a hook can use to look at the upgrade and to disturb it.
type Environment struct {
	// Target is the resource that is upgraded, with clients that have all rights.
	measure.Target
	// Load is the running load.
	Load *load.Load
	// Latest returns the resource as the watch last showed it. It must not be changed.
	Latest func() *v2beta1.EMQX
}

const (
	defaultClients      = 3000
	defaultMessages     = 100
	defaultSteady       = 3 * time.Second
	defaultUpgradeLimit = 10 * time.Minute
	defaultReplica      = 1.0
	defaultVolumeSize   = "1Mi"
	sampleFile          = "samples/emqx.yaml"
)

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.ClusterBinary == "" {
		return c, errors.New("a demo needs the directory of a cluster and the program `cluster`")
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Clients == 0 {
		c.Clients = defaultClients
	}
	if c.MessagesPerSecond == 0 {
		c.MessagesPerSecond = defaultMessages
	}
	if c.Steady == 0 {
		c.Steady = defaultSteady
	}
	if c.ReplicaSeconds == 0 {
		c.ReplicaSeconds = defaultReplica
	}
	if c.UpgradeLimit == 0 {
		c.UpgradeLimit = defaultUpgradeLimit
	}
	if c.NoLicence {
		c.Replicas, c.VolumeSize = 1, cmp.Or(c.VolumeSize, defaultVolumeSize)
	}
	if c.Clients < 0 || c.Steady < 0 || c.ReplicaSeconds < 0 || c.UpgradeLimit < 0 || c.Replicas < 0 || c.ConnEvictRate < 0 || c.SessEvictRate < 0 {
		return c, errors.New("numbers of clients and nodes, rates and times cannot be negative")
	}
	var err error
	c.Manifests, err = findManifests(c.Manifests, c.ClusterBinary)
	return c, err
}

// findManifests returns the directory asked for, or else looks in the working directory and beside the binary.
func findManifests(asked, binary string) (string, error) {
	candidates := []string{asked}
	if asked == "" {
		candidates = []string{"manifests", filepath.Join(filepath.Dir(binary), "..", "manifests")}
	}
	for _, candidate := range candidates {
		if _, err := os.Stat(filepath.Join(candidate, sampleFile)); err == nil {
			return filepath.Clean(candidate), nil
		}
	}
	return "", fmt.Errorf("no %s in %v; name the directory of the operator's manifests with --manifests", sampleFile, candidates)
}
