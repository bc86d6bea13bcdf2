package replay

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// StandIn makes the commands of stand-in nodes that are configured like the recorded ones: release 5.8.9, no
// certificates, addresses of their own. program and its first arguments run one stand-in node.
func StandIn(addresses []string, extra []string, program string, args ...string) func(int, string, []int) (*exec.Cmd, error) {
	return func(node int, dir string, seeds []int) (*exec.Cmd, error) {
		address := addresses[node]
		config, keys := filepath.Join(dir, configFile), filepath.Join(dir, keyFile)
		for path, text := range map[string]string{config: recordedConfig(address), keys: recordedKeys} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return nil, fmt.Errorf("write the configuration of node %d: %w", node, err)
			}
		}
		list := append([]string{}, args...)
		list = append(list, "--address", address, "--node", "emqx@"+address, "--config", config, "--data", filepath.Join(dir, "data"),
			"--emqx-version", "5.8.9", "--api-key-file", keys, "--cookie", "replay")
		if len(seeds) > 0 {
			hosts := make([]string, 0, len(seeds))
			for _, seed := range seeds {
				hosts = append(hosts, addresses[seed])
			}
			list = append(list, "--join", strings.Join(hosts, ","))
		}
		return exec.Command(program, append(list, extra...)...), nil //nolint:gosec,noctx // the caller's own program; its life is Control's
	}
}

// The files of a node, in its directory.
const (
	configFile = "emqx.conf"
	keyFile    = "keys"
)

const recordedKeys = "opkey:opsecret\nviewkey:viewsecret:viewer\n"

// recordedConfig is what the recorded nodes had in emqx.conf.
func recordedConfig(address string) string {
	return fmt.Sprintf(`node.role = core
dashboard.listeners.http.bind = "%[1]s:18083"
listeners.tcp.default.bind = "%[1]s:1883"
listeners.ws.default.bind = "%[1]s:8083"
listeners.ssl.default { bind = 8883, enable = false }
listeners.wss.default { bind = 8084, enable = false }
`, address)
}

// WithEnvironment adds variables to the environment of a node's command.
func WithEnvironment(command func(int, string, []int) (*exec.Cmd, error), variables ...string) func(int, string, []int) (*exec.Cmd, error) {
	return func(node int, dir string, seeds []int) (*exec.Cmd, error) {
		cmd, err := command(node, dir, seeds)
		if err == nil {
			cmd.Env = append(os.Environ(), variables...)
		}
		return cmd, err
	}
}
