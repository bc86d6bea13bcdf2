package settings

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// start reads a text as a node does that boots in a pod of the operator.
func start(t *testing.T, text string) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "emqx.conf")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	_, err := Load(Source{File: path})
	return err
}

func TestRefusesAtBootWhatEMQXRefuses(t *testing.T) {
	for line := range strings.Lines(recordedVerdicts) {
		var v struct {
			Text, Base64 string
			Loads        bool
		}
		require.NoError(t, json.Unmarshal([]byte(line), &v))
		if v.Base64 != "" {
			text, err := base64.StdEncoding.DecodeString(v.Base64)
			require.NoError(t, err)
			v.Text = string(text)
		}
		t.Run(v.Text, func(t *testing.T) {
			if err := start(t, v.Text); v.Loads {
				require.NoError(t, err)
				require.Nil(t, refusedBySigns(v.Text), "the rules refuse nothing that loads")
			} else {
				require.Error(t, err)
			}
			if !v.Loads {
				require.NotNil(t, refusal(v.Text), "whatever the reader says that the operator uses")
			}
			if !v.Loads && !strings.HasPrefix(v.Text, ",") && !strings.HasPrefix(v.Text, "{") {
				require.Error(t, start(t, operatorsLines+v.Text), "also after what the operator puts before it")
			}
		})
	}
	for line := range strings.Lines(recordedPorts) {
		var v struct{ Name, Config, EMQX string }
		require.NoError(t, json.Unmarshal([]byte(line), &v))
		t.Run(v.Name, func(t *testing.T) {
			if err := start(t, v.Config); v.EMQX == "refuse" {
				require.Error(t, err)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

func TestRulesOfItsOwn(t *testing.T) {
	for reason, text := range map[string]string{
		"a path":                      "node.data_dir = /opt/emqx",
		"a single quote":              "node.cookie = 'x'",
		"a comma at the end":          "a = 1,\n",
		"two commas":                  "a = [1,,2]",
		"a string over lines":         "a = \"x\ny\"",
		"three quotes that stay open": "a = \"\"\"x",
		"a letter that is no ASCII":   "a = é",
		"a substitution that is open": "a = ${x",
		"appending":                   "b = 1\n\na += /",
	} {
		require.NotNil(t, refusedBySigns(text), reason)
	}
	for reason, text := range map[string]string{
		"in quotes all is allowed": `a = "/'é,,"`, "in comments, too": "a = 1 # /é\n// ,,'", "also in three quotes": "a = \"\"\"/\n'\"\"\"",
		"a comma before a bracket": "a = [1,]", "a byte order mark": "\ufeffa = 1", "a backslash before the closing quote": `a = "C:\"`,
	} {
		require.Nil(t, refusedBySigns(text), reason)
	}
	require.ErrorContains(t, start(t, "listeners.tcp.a.bind = 70000"), "port_number_too_large")
	require.ErrorContains(t, start(t, "listeners.tcp.a.bind = \"mqtt:1\""), "bad_ip_port")
	require.ErrorContains(t, start(t, "listeners.mqtt.a.bind = 1"), "unknown_fields")
	require.NoError(t, start(t, "listeners.tcp.a.bind = \" +70 00\""))
}

// Addresses that come from the environment are checked like those of the file.
func TestRefusesBindsOfTheEnvironment(t *testing.T) {
	for pair, refused := range map[string]string{
		"EMQX_LISTENERS__TCP__DEFAULT__BIND=1884":            "",
		"EMQX_LISTENERS__TCP__DEFAULT__BIND=127.0.0.1:1884":  "",
		"EMQX_LISTENERS__WSS__OTHER__BIND=70000":             "port_number_too_large",
		"EMQX_LISTENERS__TCP__DEFAULT__BIND=mqtt:1":          "bad_ip_port",
		"EMQX_LISTENERS__SSL__DEFAULT__BIND=x":               "bad_port_number",
		"EMQX_LISTENERS__TCP__DEFAULT__BIND=-1":              "port_number_must_be_positive",
		`EMQX_LISTENERS__TCP__DEFAULT={bind = "1883x"}`:      "bad_port_number",
		"EMQX_LISTENERS__MQTT__DEFAULT__BIND=x":              "", // EMQX warns of variables that it does not know
		"EMQX_LISTENERS__TCP__DEFAULT__MAX_CONNECTIONS=1000": "",
	} {
		_, err := Load(Source{Environ: []string{pair}})
		if refused == "" {
			require.NoError(t, err, pair)
		} else {
			require.ErrorContains(t, err, refused, pair)
		}
	}
}
