// Package command is the command line of an EMQX stand-in node.
package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/storage"
)

const help = `Runs one node of the EMQX stand-in: a real MQTT 3.1.1 and 5 broker that clusters with others
like it and has as much of EMQX's management API as an operator uses.

By hand, give each node a loopback address of its own; every node then has the usual ports
(1883 MQTT, 8083 WebSocket, 18083 API, 4370 between nodes):

  cluster emqx --address 127.0.0.11 --api-key opkey:opsecret --license official --data /tmp/a
  cluster emqx --address 127.0.0.12 --join 127.0.0.11 --api-key opkey:opsecret --license official --data /tmp/b
  curl -u opkey:opsecret http://127.0.0.11:18083/api/v5/nodes

Without --config, TLS listeners are off.

In a pod no flags are needed: everything is taken from the environment as EMQX's image does (EMQX_HOST,
EMQX_NODE__COOKIE, EMQX_CLUSTER__DNS__NAME, EMQX_API_KEY__BOOTSTRAP_FILE and any other EMQX_A__B__C), from
/opt/emqx/etc/emqx.conf, and from LOCAL_POD_ADDRESS, LOCAL_POD_ROOT and LOCAL_DNS_ADDRESS of the node agent.

These variables stand for flags: EMQX_STANDIN_BOOT_SECONDS, EMQX_STANDIN_MEMORY_BYTES, EMQX_STANDIN_STORAGE_SCALE,
EMQX_STANDIN_VERSION.

The licence is EMQX's rule since 5.9: "default" is the community licence, with which a second node stops as soon as
it has joined; "evaluation" is a trial of 25 sessions; a key is believed what it says; any other text counts as an
official key. With 5.8, "default" is the trial. A key that is changed by API must have the form of one, or begin with "official".

The node stops in good order on SIGTERM or SIGINT.`

// flags is what can be said on the command line.
type flags struct {
	address, node, cookie, config, data, licence, version, keyFile, logLevel  string
	join, keys                                                                []string
	bootSeconds, peerTimeoutSeconds, retrySeconds, timeoutScale, storageScale float64
	memoryBytes                                                               uint64
}

// New is the command that runs one node.
func New() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "emqx",
		Short: "Run one node of the EMQX stand-in",
		Long:  help,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), f)
		},
	}
	set := cmd.Flags()
	set.StringVar(&f.address, "address", "", "IP address to listen on (default $LOCAL_POD_ADDRESS)")
	set.StringVar(&f.node, "node", "", "node name (default emqx@ADDRESS, in a pod from the environment)")
	set.StringSliceVar(&f.join, "join", nil, "other nodes to form a cluster with: host or name@host, several with commas")
	set.StringVar(&f.cookie, "cookie", "", "what the nodes of a cluster share (default from the configuration)")
	set.StringVar(&f.config, "config", "", "EMQX configuration file, HOCON")
	set.StringVar(&f.data, "data", "", "directory for what outlives a restart, such as members, keys and configuration (default: nothing is kept)")
	set.StringArrayVar(&f.keys, "api-key", nil, "API key, key:secret or key:secret:role; repeatable")
	set.StringVar(&f.keyFile, "api-key-file", "", "file with such keys, one a line")
	set.StringVar(&f.licence, "license", "", "licence key: default, evaluation, or any text for an official one")
	set.StringVar(&f.version, "emqx-version", "", "release to imitate (default "+standin.DefaultVersion+"; 5.8.9 for the recordings)")
	set.Float64Var(&f.bootSeconds, "boot-seconds", 0, "seconds until /status answers (default 1)")
	set.Float64Var(&f.retrySeconds, "join-retry-seconds", 0, "seconds between two looks for other nodes (default 5)")
	set.Float64Var(&f.peerTimeoutSeconds, "peer-timeout-seconds", 0, "seconds until a silent node counts as stopped (default 144, as recorded)")
	set.Float64Var(&f.timeoutScale, "timeout-scale", 1, "multiplies every timeout that was recorded of a frozen node, for tests")
	set.Float64Var(&f.storageScale, "storage-scale", 0, "multiplies how long replicas of durable storage take to move: 5 s to join, 0.2 s to leave, 60 s to be removed (default --timeout-scale)")
	set.Uint64Var(&f.memoryBytes, "memory-bytes", 0, "memory_total in bytes (default the machine's)")
	set.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func run(ctx context.Context, f flags) error {
	cfg, err := f.resolve(os.Environ())
	if err != nil {
		return err
	}
	node, err := standin.New(cfg)
	if err != nil {
		return err
	}
	return node.Run(ctx)
}

// environment looks up variables.
type environment map[string]string

func environmentOf(environ []string) environment {
	e := environment{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		e[name] = value
	}
	return e
}

func (e environment) first(names ...string) string {
	for _, name := range names {
		if e[name] != "" {
			return e[name]
		}
	}
	return ""
}

// resolve makes the node's configuration from flags, environment and files, in this order.
func (f flags) resolve(environ []string) (standin.Config, error) {
	env := environmentOf(environ)
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return standin.Config{}, fmt.Errorf("--log-level: %w", err)
	}
	if err := f.fromEnvironment(env); err != nil {
		return standin.Config{}, err
	}
	root := env["LOCAL_POD_ROOT"]
	layers, err := settings.Load(settings.Source{Root: root, File: f.config, Environ: environ})
	if err != nil {
		return standin.Config{}, err
	}
	if root == "" && f.config == "" {
		f.byHand(layers.Base)
	}
	f.overrule(layers.Environment)
	tree := layers.Effective(nil)
	cfg := standin.Config{
		Layers: layers, Address: f.address, Cookie: f.cookie, DataDir: f.data, Version: f.version, MemoryBytes: f.memoryBytes,
		KeyLines: f.keys, KeyFile: f.keyFile, Root: root,
		Resolver: standin.Resolver{Server: env["LOCAL_DNS_ADDRESS"], PodNetwork: env["LOCAL_POD_ADDRESS"] != ""},
		Timing:   standin.Timing{Boot: inSeconds(f.bootSeconds), Retry: inSeconds(f.retrySeconds)},
		Log:      slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}
	f.scale(&cfg)
	cfg.Name = f.nodeName(env, tree)
	if cfg.DataDir == "" && root != "" {
		cfg.DataDir = standin.InPod(root, tree.Text("data", "node", "data_dir"))
	}
	if cfg.KeyFile == "" {
		if file := tree.Text("", "api_key", "bootstrap_file"); file != "" {
			cfg.KeyFile = standin.InPod(root, file)
		}
	}
	prefix, _, _ := strings.Cut(cfg.Name, "@")
	if len(f.join) > 0 {
		cfg.Discover = standin.Static(prefix, f.join)
		return cfg, nil
	}
	cfg.Discover, err = standin.Discovery(tree, cfg.Name, cfg.Resolver)
	return cfg, err
}

// fromEnvironment fills in flags that were not given.
func (f *flags) fromEnvironment(env environment) error {
	if f.address == "" {
		f.address = env["LOCAL_POD_ADDRESS"]
	}
	if f.address == "" {
		return errors.New("no address to listen on: give --address, such as --address 127.0.0.11")
	}
	if f.version == "" {
		f.version = env["EMQX_STANDIN_VERSION"]
	}
	for name, value := range map[string]*float64{
		"EMQX_STANDIN_BOOT_SECONDS": &f.bootSeconds, "EMQX_STANDIN_STORAGE_SCALE": &f.storageScale,
	} {
		if text := env[name]; text != "" && *value == 0 {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			*value = v
		}
	}
	if text := env["EMQX_STANDIN_MEMORY_BYTES"]; text != "" && f.memoryBytes == 0 {
		v, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("EMQX_STANDIN_MEMORY_BYTES: %w", err)
		}
		f.memoryBytes = v
	}
	return nil
}

// scale sets the timeouts of a frozen node. Without a scale they are left to the defaults.
func (f flags) scale(cfg *standin.Config) {
	cfg.Link.PeerTimeout = inSeconds(f.peerTimeoutSeconds)
	cfg.Storage = f.storageTimes()
	if f.timeoutScale == 1 || f.timeoutScale <= 0 {
		return
	}
	scaled := func(seconds float64) time.Duration { return inSeconds(seconds * f.timeoutScale) }
	if f.peerTimeoutSeconds == 0 {
		cfg.Link.PeerTimeout = scaled(141) // and a heartbeat more, until it is noticed
	}
	cfg.Link.Heartbeat = 200 * time.Millisecond
	cfg.Link.Heal = scaled(15)
	cfg.API.Node, cfg.API.Listeners, cfg.API.Change = scaled(30), scaled(60), scaled(60)
	cfg.Broker.Member = scaled(30)
	cfg.Evacuation.Gather, cfg.Evacuation.Recipients = scaled(18), scaled(44)
}

// storageTimes is how long replicas of durable storage take to move: as recorded, or scaled.
func (f flags) storageTimes() storage.Times {
	scale := f.storageScale
	if scale <= 0 {
		scale = f.timeoutScale
	}
	if scale <= 0 {
		return storage.Times{}
	}
	return storage.Times{Join: inSeconds(5 * scale), Leave: inSeconds(0.2 * scale), Remove: inSeconds(60 * scale)}
}

// byHand is the configuration of a node that has none: everything on its own address, and no TLS.
func (f *flags) byHand(base settings.Tree) {
	base.Set(f.address+":18083", "dashboard", "listeners", "http", "bind")
	base.Set(f.address+":1883", "listeners", "tcp", "default", "bind")
	base.Set(f.address+":8083", "listeners", "ws", "default", "bind")
	for kind, port := range map[string]int64{"ssl": 8883, "wss": 8084} {
		base.Set(settings.Tree{"bind": port, "enable": false}, "listeners", kind, "default")
	}
}

// overrule gives what was said on the command line precedence over everything else.
func (f *flags) overrule(top settings.Tree) {
	if f.licence != "" {
		top.Set(f.licence, "license", "key")
	}
}

// nodeName is EMQX's order: the flag, EMQX_NODE_NAME, EMQX_NODE__NAME, EMQX_NAME with EMQX_HOST, the configuration.
func (f flags) nodeName(env environment, tree settings.Tree) string {
	if f.node != "" {
		return f.node
	}
	if name := env.first("EMQX_NODE_NAME", "EMQX_NODE__NAME"); name != "" {
		return strings.Trim(name, `"`)
	}
	prefix := env["EMQX_NAME"]
	if prefix == "" {
		prefix = "emqx"
	}
	if host := env["EMQX_HOST"]; host != "" {
		return prefix + "@" + host
	}
	if name := tree.Text("", "node", "name"); name != "" && name != "emqx@127.0.0.1" {
		return name
	}
	host := f.address
	if env["LOCAL_POD_ADDRESS"] != "" && strings.HasPrefix(host, "127.") {
		host = "10." + strings.TrimPrefix(host, "127.")
	}
	return prefix + "@" + host
}

func inSeconds(v float64) time.Duration { return time.Duration(v * float64(time.Second)) }
