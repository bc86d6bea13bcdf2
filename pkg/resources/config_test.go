package resources

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/hocon"
)

func short(ports []Port) []string {
	list := []string{}
	for _, port := range ports {
		list = append(list, fmt.Sprintf("%s/%d", strings.ToLower(string(port.Protocol)), port.Number))
	}
	slices.Sort(list)
	return list
}

// TestPortsAreEMQXs compares with what EMQX opens, as it was recorded.
func TestPortsAreEMQXs(t *testing.T) {
	data, err := os.ReadFile("testdata/ports.jsonl")
	require.NoError(t, err)
	require.NotEmpty(t, data)
	for line := range strings.Lines(string(data)) {
		var recorded struct {
			Name, Config         string
			Listeners, Dashboard []string
		}
		require.NoError(t, json.Unmarshal([]byte(line), &recorded))
		t.Run(recorded.Name, func(t *testing.T) {
			config, err := ParseConfig(recorded.Config, nil)
			if slices.Contains(slices.Concat(recorded.Listeners, recorded.Dashboard), "refused") {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, recorded.Listeners, short(config.Ports.Listeners))
			require.Equal(t, recorded.Dashboard, short(config.Ports.Dashboard))
		})
	}
}

func TestPortNames(t *testing.T) {
	tcp := func(name string, number int32, listener string) Port {
		return Port{Name: name, Number: number, Protocol: corev1.ProtocolTCP, Listener: listener}
	}
	off := "listeners { tcp.default.enable = false, ssl.default.enable = false, ws.default.enabled = false, wss.default.enable = false }\n"
	for _, test := range []struct {
		reason, data         string
		dashboard, listeners []Port
	}{
		{"nothing said", "", []Port{tcp("dashboard", 18083, "")}, []Port{
			tcp("ssl-default", 8883, "ssl:default"), tcp("tcp-default", 1883, "tcp:default"), tcp("ws-default", 8083, "ws:default"), tcp("wss-default", 8084, "wss:default"),
		}},
		{"both dashboards", off + "dashboard.listeners { http.bind = \"0.0.0.0:80\", https.bind = \"[::]:443\" }", []Port{tcp("dashboard", 80, ""), tcp("dashboard-https", 443, "")}, nil},
		{"names that are no port names", off + "listeners.tcp.My_Own.bind = 1884\nlisteners.tcp.my-own.bind = 1885", []Port{tcp("dashboard", 18083, "")},
			[]Port{tcp("tcp-my-own", 1884, "tcp:My_Own"), tcp("tcp-my-own-2", 1885, "tcp:my-own")}},
		{"one number for TCP and UDP", off + "listeners { tcp.a.bind = 14567, quic.b.bind = 14567 }", []Port{tcp("dashboard", 18083, "")},
			[]Port{{Name: "quic-b", Number: 14567, Protocol: corev1.ProtocolUDP, Listener: "quic:b"}, tcp("tcp-a", 14567, "tcp:a")}},
		{"gateways", off + "gateway { coap { listeners.udp.default.bind = 5683 }, stomp { enable = false, listeners.tcp.default.bind = 61613 } }", []Port{tcp("dashboard", 18083, "")},
			[]Port{{Name: "coap-udp-default", Number: 5683, Protocol: corev1.ProtocolUDP}}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			ports := portsOf(t, test.data)
			require.Equal(t, test.dashboard, ports.Dashboard)
			require.Equal(t, test.listeners, ports.Listeners)
		})
	}
}

func TestWhatEMQXRefusesIsRefusedWithItsPlace(t *testing.T) {
	for data, want := range map[string]string{
		`listeners.tcp.default.bind = 65536`:                 "listeners.tcp.default.bind: the port is larger than 65535",
		`listeners.tcp.default.bind = -1`:                    "listeners.tcp.default.bind: the port is negative",
		`listeners.tcp.default.bind = ""`:                    "listeners.tcp.default.bind: the port is no number",
		`listeners.tcp.default.bind = "0.0.0.0:"`:            "listeners.tcp.default.bind: the port is no number",
		`listeners.tcp.default.bind = "localhost:1"`:         "listeners.tcp.default.bind: the address is no IP address, and EMQX takes no names",
		`listeners.tcp.default.bind = "[::1:1"`:              "listeners.tcp.default.bind: the bracket around the address is not closed",
		`listeners.tcp.default.bind = true`:                  "listeners.tcp.default.bind: this is a port, or an address and a port in quotes",
		`listeners.tcp.default.enable = on`:                  "listeners.tcp.default.enable: this is true or false and nothing else",
		`listeners.tcp.default { enable = false, bind = x }`: "listeners.tcp.default.bind: the port is no number",
		`listeners.tcp.default = 1883`:                       "listeners.tcp.default: a listener is an object",
		`listeners.tcp = 1883`:                               "listeners.tcp: this holds settings, so it must be an object",
		`listeners.mqtt.default.bind = 1`:                    "listeners.mqtt: EMQX has no listeners of this type here, only tcp, ssl, ws, wss, quic",
		`listeners.tcp { "a b" { bind = 1 } }`:               "listeners.tcp.a b: the name of a listener has only letters, digits, - and _, and begins with a letter or a digit",
		`gateway.stomp.listeners.udp.a.bind = 1`:             "gateway.stomp.listeners.udp: EMQX has no listeners of this type here, only tcp, ssl",
		`gateway.exproto.listeners.tcp.a.bind = 1`:           "gateway.exproto.server.bind: EMQX requires it",
		`dashboard.listeners.http.bind = x`:                  "dashboard.listeners.http.bind: the port is no number",
		`dashboard.listeners.http.bind = 0`:                  "dashboard.listeners: neither http nor https can be reached from outside the pod, so that EMQX could not be managed",
		`listeners.tcp.default.bind = ${PORT}`:               "line 1, column 30: the substitution ${PORT} stands for nothing: EMQX looks only in this text, not in the environment",
		"a {\n b = \n}":                                      `line 3, column 1: expected a value (quote text that has signs in it), found "}"`,
		"\n# mine\n{ a = /x }":                               `line 3, column 7: "/" cannot stand here without quotes around the text`,
		"{\n a = /x }":                                       `line 2, column 6: "/" cannot stand here without quotes around the text`,
		"{":                                                  `line 1, column 1: expected a name or "}" at the end, found the end of the text`,
		"\ufeffa = /x":                                       `line 1, column 5: "/" cannot stand here without quotes around the text`,
		"listeners.tcp { default { bind = 1 } ":              `line 1, column 36: expected a comma or "}" (quote text that has signs in it), found the end of the text`,
		strings.Repeat("a", hocon.MaxBytes):                  "the text has 1048711 bytes with the default listeners before it, more than the 1048576 that a ConfigMap holds",
		"durable_sessions.enable = yes":                      "durable_sessions.enable: this is true or false and nothing else",
		"zones.a.durable_sessions = 1":                       "zones.a.durable_sessions: this holds settings, so it must be an object",
	} {
		_, err := ParseConfig(data, nil)
		require.EqualError(t, err, want, data[:min(len(data), 100)])
	}
}

func TestBinds(t *testing.T) {
	for text, want := range map[string]bind{
		"1883": {port: 1883}, "18 83": {port: 1883}, "+1883": {port: 1883}, ":1883": {port: 1883}, "[]:1883": {port: 1883}, "0": {},
		"0.0.0.0:1883": {port: 1883}, "[::]:1883": {port: 1883}, ":::1883": {port: 1883}, "fe80::1:1883": {port: 1883},
		"127.0.0.1:1883": {1883, true}, "127.1:1883": {1883, true}, "0x7f.1:1883": {1883, true}, "[::1]:1883": {1883, true},
		"::1:1883": {1883, true}, "[::ffff:127.0.0.1]:1883": {1883, true}, "127.8.8.8:1": {1, true}, "10.1:5": {port: 5},
	} {
		got, reason := parseBind(text)
		require.Empty(t, reason, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", ":", "a", "1.5", "1883d", "0x10", "1_0", "300.0.0.1:1", "1.2.3.4.5:1", "tcp://0.0.0.0:1", "[::]", "[::1:5", "1.2.3:", "99999999999999999999"} {
		_, reason := parseBind(text)
		require.NotEmpty(t, reason, text)
	}
}

func env(pairs ...string) []corev1.EnvVar {
	var list []corev1.EnvVar
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, corev1.EnvVar{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

func fromElsewhere(name string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{}}}
}

func TestEnvironmentIsOverTheText(t *testing.T) {
	off := "listeners { ssl.default.enable = false, ws.default.enable = false, wss.default.enable = false }\n"
	for _, test := range []struct {
		reason, data         string
		env                  []corev1.EnvVar
		listeners, dashboard []string
	}{
		{"a bind", "", env("EMQX_LISTENERS__TCP__DEFAULT__BIND", "1884"), []string{"tcp/1884"}, nil},
		{"an address without quotes is text", "", env("EMQX_LISTENERS__TCP__DEFAULT__BIND", "0.0.0.0:1884"), []string{"tcp/1884"}, nil},
		{"an address in quotes", "", env("EMQX_LISTENERS__TCP__DEFAULT__BIND", `"0.0.0.0:1884"`), []string{"tcp/1884"}, nil},
		{"loopback", "", env("EMQX_LISTENERS__TCP__DEFAULT__BIND", "127.0.0.1:1884"), []string{}, nil},
		{"it wins over the text", "listeners.tcp.default.bind = 1885", env("EMQX_LISTENERS__TCP__DEFAULT__BIND", "1884"), []string{"tcp/1884"}, nil},
		{"off", "", env("EMQX_LISTENERS__TCP__DEFAULT__ENABLE", "false"), []string{}, nil},
		{"on", "listeners.tcp.default.enable = false", env("EMQX_LISTENERS__TCP__DEFAULT__ENABLE", "true"), []string{"tcp/1883"}, nil},
		{"another listener, its name in small letters", "", env("EMQX_LISTENERS__TCP__OTHER_ONE__BIND", "1884"), []string{"tcp/1883", "tcp/1884"}, nil},
		{"an object replaces", "listeners.tcp.default.enable = false", env("EMQX_LISTENERS__TCP__DEFAULT", "{bind = 1884}"), []string{"tcp/1884"}, nil},
		{"the inner variable wins over the outer one", "", env("EMQX_LISTENERS__TCP__DEFAULT__BIND", "1885", "EMQX_LISTENERS__TCP__DEFAULT", "{bind = 1884}"), []string{"tcp/1885"}, nil},
		{"of two variables of one name the last", "", env("EMQX_LISTENERS__TCP__DEFAULT__BIND", "1884", "EMQX_LISTENERS__TCP__DEFAULT__BIND", "1885"), []string{"tcp/1885"}, nil},
		{"a variable in another", "", env("PORT", "1886", "EMQX_LISTENERS__TCP__DEFAULT__BIND", "$(PORT)"), []string{"tcp/1886"}, nil},
		{"what names no setting is ignored", "", env("EMQX_LISTENERS__UDP__X__BIND", "1", "EMQX_", "2", "EMQX_LISTENER", "3", "OTHER", "4"), []string{"tcp/1883"}, nil},
		{"a gateway", "", env("EMQX_GATEWAY__COAP__LISTENERS__UDP__DEFAULT__BIND", "5683"), []string{"tcp/1883", "udp/5683"}, nil},
		{"the dashboard", "", env("EMQX_DASHBOARD__LISTENERS__HTTP__BIND", "28083"), []string{"tcp/1883"}, []string{"tcp/28083"}},
		{"the dashboard's other side", "", env("EMQX_DASHBOARD__LISTENERS__HTTPS__BIND", "443", "EMQX_DASHBOARD__LISTENERS__HTTP__BIND", "127.0.0.1:18083"), []string{"tcp/1883"}, []string{"tcp/443"}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			config, err := ParseConfig(off+test.data, test.env)
			require.NoError(t, err)
			require.Equal(t, test.listeners, short(config.Ports.Listeners))
			if test.dashboard != nil {
				require.Equal(t, test.dashboard, short(config.Ports.Dashboard))
			}
			require.Empty(t, config.Unknown)
		})
	}
}

func TestEnvironmentCanRefuse(t *testing.T) {
	for _, test := range []struct {
		reason string
		env    []corev1.EnvVar
		want   string
	}{
		{"a bind that is none", env("EMQX_LISTENERS__TCP__DEFAULT__BIND", "mqtt"), "listeners.tcp.default.bind: the port is no number"},
		{"an empty bind", env("EMQX_LISTENERS__TCP__DEFAULT__BIND", ""), "listeners.tcp.default.bind: the port is no number"},
		{"a dashboard that nobody reaches", env("EMQX_DASHBOARD__LISTENERS__HTTP__BIND", "127.0.0.1:18083"), "dashboard.listeners: neither http nor https can be reached from outside the pod, so that EMQX could not be managed"},
		{"a dashboard on a port that is not known", []corev1.EnvVar{fromElsewhere("EMQX_DASHBOARD__LISTENERS__HTTP__BIND")}, "dashboard.listeners.http.bind: spec.coreTemplate.spec.env[0] (EMQX_DASHBOARD__LISTENERS__HTTP__BIND) has a value from elsewhere that is not known, so that EMQX could not be managed"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			_, err := ParseConfig("", test.env)
			require.EqualError(t, err, test.want)
		})
	}
}

func TestWhatCannotBeKnownIsSaid(t *testing.T) {
	list := []corev1.EnvVar{
		fromElsewhere("EMQX_LISTENERS__TCP__DEFAULT__BIND"), fromElsewhere("EMQX_NODE__COOKIE"), fromElsewhere("PORT"),
		{Name: "EMQX_LISTENERS__WS__DEFAULT__BIND", Value: "$(PORT)"},
	}
	config, err := ParseConfig("include \"etc/extra.conf\"\ngateway.stomp.listeners.tcp.a.acceptors = 1\nlisteners.ssl.default = ${x}", list)
	require.NoError(t, err)
	require.Equal(t, []string{"tcp/8084"}, short(config.Ports.Listeners), "no port is guessed")
	require.Equal(t, []string{
		`"etc/extra.conf" is included, and what it says is not known`,
		"spec.coreTemplate.spec.env[0] (EMQX_LISTENERS__TCP__DEFAULT__BIND) has a value from elsewhere that is not known",
		"spec.coreTemplate.spec.env[3] (EMQX_LISTENERS__WS__DEFAULT__BIND) has a value from elsewhere that is not known",
		"listeners.ssl.default depends on what is not known",
		"listeners.tcp.default.bind depends on what is not known",
		"listeners.ws.default.bind depends on what is not known",
		"gateway.stomp.listeners.tcp.a.bind depends on what is not known",
	}, config.Unknown)

	config, err = ConfigOf(sample(func(e *v2beta1.EMQX) {
		e.Spec.CoreTemplate.Spec.EnvFrom = []corev1.EnvFromSource{{Prefix: "X"}}
	}))
	require.NoError(t, err)
	require.Equal(t, []string{"spec.coreTemplate.spec.envFrom[0] may set any EMQX_ variable"}, config.Unknown)
}

func TestExpandsVariablesAsKubernetesDoes(t *testing.T) {
	variables := map[string]variable{"A": {text: "1", known: true}, "S": {}}
	for text, want := range map[string]string{"$(A)": "1", "$$(A)": "$(A)", "$(B)": "$(B)", "$A$": "$A$", "x$(A)y$(A": "x1y$(A", "$": "$", "": ""} {
		got, known := expand(text, variables)
		require.True(t, known)
		require.Equal(t, want, got, text)
	}
	_, known := expand("a$(S)", variables)
	require.False(t, known)
}

func TestDurableSessions(t *testing.T) {
	for data, want := range map[string]bool{
		"": false, "durable_sessions.enable = true": true, "durable_sessions { enable = false }": false, "durable_sessions = null": false,
		"zones { slow { durable_sessions.enable = \"true\" } }": true, "zones.slow.mqtt.max_inflight = 1": false,
	} {
		config, err := ParseConfig(data, nil)
		require.NoError(t, err)
		require.Equal(t, want, config.DurableSessions, data)
	}
	for _, name := range []string{"EMQX_DURABLE_SESSIONS__ENABLE", "EMQX_ZONES__SLOW__DURABLE_SESSIONS__ENABLE", "EMQX_DURABLE_SESSIONS"} {
		value := "true"
		if !strings.HasSuffix(name, "ENABLE") {
			value = "{enable = true}"
		}
		config, err := ParseConfig("", env(name, value))
		require.NoError(t, err)
		require.True(t, config.DurableSessions, name)
	}
}

func TestNodeCookie(t *testing.T) {
	config, err := ParseConfig("node.cookie = mine", nil)
	require.NoError(t, err)
	require.Equal(t, "mine", config.CookieOr("random"))
	require.Equal(t, "random", Config{}.CookieOr("random"))
}

func TestConfigTextPutsTheDefaultsFirst(t *testing.T) {
	for data, want := range map[string]string{
		"a = 1":            defaultListeners + "a = 1",
		"\ufeffa = 1":      defaultListeners + "a = 1",
		"{a = 1}":          "{\n" + defaultListeners + "a = 1}",
		"# x\n{ a = 1 }\n": "# x\n{\n" + defaultListeners + " a = 1 }",
		"# {\na = 1":       defaultListeners + "# {\na = 1",
	} {
		require.Equal(t, want, ConfigText(data))
		_, err := hocon.Parse(ConfigText(data))
		require.NoError(t, err, data)
	}
}

// TestConfigurationThatGrows counts what reading allocates for texts that once took minutes or gigabytes.
func TestConfigurationThatGrows(t *testing.T) {
	for _, pattern := range []string{
		"listeners.tcp.name%d.bind = %d\n", "listeners.tcp.a" + strings.Repeat("b", 80) + "%d { bind = %d }\n",
		"listeners { tcp { x%d { bind = %d, enable = false } } }\n", "gateway.g%d.listeners.tcp.default.bind = %d\n",
		"zones.z%d.durable_sessions.enable = false\n", "{}",
	} {
		t.Run(pattern, func(t *testing.T) {
			allocated := func(n int) (total, size float64) {
				var text strings.Builder
				for i := range n {
					text.WriteString(strings.ReplaceAll(pattern, "%d", strconv.Itoa(1000+i)))
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_, err := ParseConfig(text.String(), nil)
				runtime.ReadMemStats(&after)
				var refused *hocon.Error
				require.True(t, err == nil || errors.As(err, &refused), err)
				return float64(after.TotalAlloc - before.TotalAlloc), float64(text.Len())
			}
			once, _ := allocated(4000)
			twice, size := allocated(8000)
			t.Logf("%.1f bytes for each byte", twice/size)
			require.Less(t, twice, 2.5*once+1e5)
			require.Less(t, twice, 20*size+1e5)
		})
	}
}
