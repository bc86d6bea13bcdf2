package upgrade

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// configs keeps what was read of the configuration of each resource, so that a text is read once a generation and not at
// every sync.
type configs struct {
	mu  sync.Mutex
	all map[cache.ObjectName]parsedConfig
}

// parsedConfig is what was read of the configuration in one generation of a resource's specification.
type parsedConfig struct {
	uid        types.UID
	generation int64
	config     resources.Config
	err        error
	hash       string
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
	read := parsedConfig{uid: emqx.UID, generation: emqx.Generation}
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
