package standin

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/api"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/broker"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/link"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/membership"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/storage"
)

// LinkPort is where nodes talk with each other: the port of Erlang's distribution.
const LinkPort = "4370"

// DefaultVersion is the release that is imitated unless another is asked for.
const DefaultVersion = "6.0.1"

// Timing is how long the stages of a node's start take. Zero values stand for the defaults.
type Timing struct {
	Boot        time.Duration // until /status answers; default 1 s (recorded: 5 s)
	Routes      time.Duration // from then until the API does; default 90 ms
	Autocluster time.Duration // from then until the node looks for others; default 1 s
	Retry       time.Duration // between two looks; default 5 s
	Restart     time.Duration // of the applications at the first join; default 500 ms
	Rejoin      time.Duration // how long a known member waits for the others at its start; default 3 s
	Stop        time.Duration // how long queues are sent out at the end; default 5 s
}

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&t.Boot, time.Second)
	set(&t.Routes, 90*time.Millisecond)
	set(&t.Autocluster, time.Second)
	set(&t.Retry, 5*time.Second)
	set(&t.Restart, 500*time.Millisecond)
	set(&t.Rejoin, 3*time.Second)
	set(&t.Stop, 5*time.Second)
	return t
}

// Config is what a Node needs. Fields left empty are taken from Layers, which hold EMQX's own configuration.
type Config struct {
	// Layers is EMQX's configuration. Required.
	Layers settings.Layers
	// Name is the node's name, such as emqx@127.0.0.11.
	Name string
	// Cookie is what the nodes of a cluster share.
	Cookie string
	// Address is the IP address to listen on, whatever address the configuration binds to. Required.
	Address string
	// DataDir is where members, keys, retained messages, evacuation and changed configuration are kept. Empty: nowhere.
	DataDir string
	// Discover finds the other nodes; nil: the node does not look for any.
	Discover membership.Discover
	// Resolver finds the addresses of nodes. The zero value asks the machine's resolver.
	Resolver Resolver
	// Version is the release to imitate, such as 6.0.1.
	Version string
	// MemoryBytes is memory_total in the API; 0 is the machine's.
	MemoryBytes uint64
	// Root is where the files of EMQX's container are; empty: where they say.
	Root string
	// KeyFile is the API key file; KeyLines are further keys in the form of its lines.
	KeyFile  string
	KeyLines []string

	Timing     Timing
	API        api.Timeouts
	Broker     broker.Timeouts
	Evacuation evacuate.Timeouts
	Storage    storage.Times
	// Link holds intervals and bounds of the connections between nodes.
	Link link.Config
	Log  *slog.Logger
}

// ErrReplicant is returned for a node with the role replicant.
var ErrReplicant = errors.New("node.role = replicant is not supported by this stand-in: only cores are")

// complete fills in what the configuration says and checks that it is enough.
func (c Config) complete() (Config, error) {
	tree := c.Layers.Effective(nil)
	if c.Name == "" {
		c.Name = tree.Text("emqx@127.0.0.1", "node", "name")
	}
	if prefix, host, found := strings.Cut(c.Name, "@"); !found || prefix == "" || host == "" {
		return c, fmt.Errorf("node name %q is not of the form name@host", c.Name)
	}
	if role := tree.Text("core", "node", "role"); role == "replicant" {
		return c, ErrReplicant
	} else if role != "core" {
		return c, fmt.Errorf("node.role = %s: it is core or replicant", role)
	}
	if c.Cookie == "" {
		c.Cookie = tree.Text("emqxsecretcookie", "node", "cookie")
	}
	if net.ParseIP(c.Address) == nil {
		return c, fmt.Errorf("address %q is no IP address", c.Address)
	}
	if c.Version == "" {
		c.Version = DefaultVersion
	}
	if c.MemoryBytes == 0 {
		c.MemoryBytes = api.MachineMemory()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.DataDir != "" {
		if err := os.MkdirAll(c.DataDir, 0o750); err != nil {
			return c, fmt.Errorf("make the data directory: %w", err)
		}
	}
	c.Timing = c.Timing.withDefaults()
	return c, nil
}

// table is where a table of EMQX's database is kept, or where all are; empty: nowhere. They belong to the name of the node:
// under another name it is another node, as in EMQX.
func (c Config) table(file string) string {
	if c.DataDir == "" {
		return ""
	}
	return filepath.Join(c.DataDir, "mnesia", c.Name, file)
}

// logPath is what /nodes says about logs.
func (c Config) logPath() string {
	if c.DataDir == "" {
		return "log.file.enable is false, not logging to file."
	}
	return filepath.Join(filepath.Dir(c.DataDir), "log")
}

// emqxHome is where EMQX lives in its image.
const emqxHome = "/opt/emqx"

// InPod is where a path of EMQX's container is on this machine; empty for none. Relative paths start at EMQX's home.
func InPod(root, path string) string {
	if root == "" || path == "" {
		return path
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(emqxHome, path)
	}
	return filepath.Join(root, path)
}

func (c Config) inPod(path string) string { return InPod(c.Root, path) }

// secureDashboard is where the API listens for HTTPS, and the certificate of that; empty where it does not.
func (c Config) secureDashboard(tree settings.Tree, otherwise *tls.Config) (string, *tls.Config, error) {
	bind, _ := tree.Get("dashboard", "listeners", "https", "bind")
	port := settings.Port(settings.BindText(bind))
	if port == "" || port == "0" {
		return "", nil, nil
	}
	address := net.JoinHostPort(c.Address, port)
	file := func(name string) string {
		return c.inPod(tree.Text("", "dashboard", "listeners", "https", "ssl_options", name))
	}
	if file("certfile") == "" {
		return address, otherwise, nil
	}
	certificate, err := tls.LoadX509KeyPair(file("certfile"), file("keyfile"))
	if err != nil {
		return "", nil, fmt.Errorf("read the certificate of the dashboard: %w", err)
	}
	return address, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}, nil
}

// dashboardAddress is where the API listens for HTTP; empty where it does not.
func dashboardAddress(tree settings.Tree, address string) string {
	bind, _ := tree.Get("dashboard", "listeners", "http", "bind")
	port := settings.Port(settings.BindText(bind))
	if port == "" || port == "0" {
		return ""
	}
	return net.JoinHostPort(address, port)
}
