package scale

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Config says what to measure. Fields left empty are set to what docs/scale.md describes.
type Config struct {
	// Dir is a directory of the benchmark's own, for the control plane, logs and profiles.
	Dir string
	// ClusterBinary is the program `cluster`, beside which the control plane and the operator are found.
	ClusterBinary string
	// Manifests is the directory of the operator's manifests.
	Manifests string
	// Sizes are the numbers of clusters to measure with, in rising order: clusters are added, none is taken away.
	Sizes []int
	// Nodes is the number of nodes of a cluster, Clients that of its clients.
	Nodes, Clients int
	// Window is how long a look at the operator at rest takes.
	Window time.Duration
	// Rest bounds the wait for the operator to come to rest after its start.
	Rest time.Duration
	// Upgrades are the numbers of clusters to upgrade at once; those above a size are left out.
	Upgrades []int
	// Quick measures a single upgrade once and with short waits, where it is not the time that matters.
	Quick bool
	// Probes is how many changes of a resource are timed.
	Probes int
	// PodStart and PodStop are how long pods take.
	PodStart, PodStop time.Duration
	// OperatorFlags are added to those that the operator is measured with.
	OperatorFlags []string
	// Keep leaves the control plane running at the end.
	Keep bool
	// Out is where to tell how it goes.
	Out io.Writer
}

func (c Config) complete() (Config, error) {
	if c.Dir == "" || c.ClusterBinary == "" || c.Manifests == "" || len(c.Sizes) == 0 {
		return c, errors.New("the directory, the program, the manifests and at least one size must be given")
	}
	for i, size := range c.Sizes {
		if size < 1 || i > 0 && size <= c.Sizes[i-1] {
			return c, fmt.Errorf("the sizes %v do not rise from 1 on", c.Sizes)
		}
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return c, fmt.Errorf("find the directory: %w", err)
	}
	if _, err := os.Stat(c.operator()); err != nil {
		return c, fmt.Errorf("find the operator (`make build` builds it): %w", err)
	}
	orElse(&c.Nodes, 3)
	orElse(&c.Clients, 300)
	orElse(&c.Window, 30*time.Second)
	orElse(&c.Rest, 7*time.Minute)
	orElse(&c.PodStart, 1500*time.Millisecond)
	orElse(&c.PodStop, 500*time.Millisecond)
	if c.Out == nil {
		c.Out = io.Discard
	}
	return c, nil
}

func orElse[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

func (c Config) operator() string {
	return filepath.Join(filepath.Dir(c.ClusterBinary), "emqx-bg-operator")
}

func (c Config) kube() string { return filepath.Join(filepath.Dir(c.ClusterBinary), "kube") }
