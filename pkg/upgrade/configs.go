package upgrade

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// configs keeps what was made of the specification of each resource, so that it is made once a generation and not at every
// sync.
type configs struct {
	mu  sync.Mutex
	all map[cache.ObjectName]parsedConfig
}

// parsedConfig is what was read of the configuration in one generation of a resource's specification, and how the objects
// stood that follow from it. The syncs of one key never overlap.
type parsedConfig struct {
	uid        types.UID
	generation int64
	config     resources.Config
	err        error
	hash       string
	compared   map[string]comparison // By the name of the Service.
}

// comparison is how an object stood against what it shall be.
type comparison struct {
	version, against string
	state            machine.ObjectState
}

// compare is how a Service stands against what it shall be, which follows from the specification and from what is named by
// against. It is found out once for each version of the object: to compare costs more than all else of a sync.
func (c parsedConfig) compare(live *corev1.Service, against string, desired func() (*applycore.ServiceApplyConfiguration, error)) (machine.ObjectState, error) {
	known := c.compared[live.Name]
	if known.version == live.ResourceVersion && known.against == against && known.version != "" {
		return known.state, nil
	}
	want, err := desired()
	if err != nil {
		return machine.Outdated, err
	}
	current, err := resources.Covers(live, want)
	if err != nil {
		return machine.Outdated, err
	}
	state := machine.Outdated
	// An extra key in the selector would be more than is wanted, and lead to fewer pods.
	if current && len(live.Spec.Selector) == len(want.Spec.Selector) {
		state = machine.Current
	}
	c.compared[live.Name] = comparison{live.ResourceVersion, against, state}
	return state, nil
}

func newConfigs() *configs { return &configs{all: map[cache.ObjectName]parsedConfig{}} }

// of is what there is to read in the configuration of a resource. Nobody waits for another's text: it is read without the
// lock, and the syncs of one key never overlap.
func (c *configs) of(emqx *v2beta1.EMQX) parsedConfig {
	c.mu.Lock()
	known := c.all[key(emqx)]
	c.mu.Unlock()
	if known.uid == emqx.UID && known.generation == emqx.Generation && known.hash != "" {
		return known
	}
	read := parsedConfig{uid: emqx.UID, generation: emqx.Generation, compared: map[string]comparison{}}
	read.config, read.err = resources.ConfigOf(emqx)
	hash, err := resources.Hash(emqx.Spec.Config.Data)
	if err != nil && read.err == nil {
		read.err = err
	}
	read.hash = hash
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[key(emqx)] = read
	return read
}

func (c *configs) forget(name cache.ObjectName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, name)
}
