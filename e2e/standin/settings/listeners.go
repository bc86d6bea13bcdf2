package settings

import (
	"fmt"
	"net"
	"sort"
	"strings"
)

// Deleted stands in the place of a listener that was taken away, so that its defaults do not bring it back.
const Deleted = "marked_for_deletion"

// Listener is one MQTT listener of the configuration.
type Listener struct {
	ID     string // EMQX's name of it, such as tcp:default
	Type   string // tcp, ssl, ws, wss or quic
	Name   string
	Enable bool
	Bind   string // as the API shows it: host:port or :port
	Config Tree   // everything that is configured, with defaults
}

// Served reports whether the stand-in can serve the type.
func (l Listener) Served() bool { return l.Type != "quic" }

// Listeners lists the configured listeners in the order in which EMQX's API does: the defaults first.
func (t Tree) Listeners() []Listener {
	var list []Listener
	for _, kind := range listenerTypes() {
		names := t.Sub("listeners", kind)
		for _, name := range names.Keys() {
			raw, ok := names[name].(Tree)
			if !ok && names[name] != nil { // Deleted; null is a listener of all defaults
				continue
			}
			list = append(list, listenerOf(kind, name, raw))
		}
	}
	sort.SliceStable(list, func(i, j int) bool {
		return list[i].Name == "default" && list[j].Name != "default"
	})
	return list
}

func listenerTypes() []string { return []string{"tcp", "ssl", "ws", "wss", "quic"} }

func listenerOf(kind, name string, raw Tree) Listener {
	config := listenerDefaults(kind)
	config.Merge(raw)
	return Listener{
		ID: kind + ":" + name, Type: kind, Name: name, Enable: config.Bool(true, "enable"),
		Bind: BindText(config["bind"]), Config: config,
	}
}

// BindText shows a bind as EMQX does: a bare port gets a colon.
func BindText(bind any) string {
	text := strings.TrimSpace(fmt.Sprint(bind))
	if bind == nil {
		return ""
	}
	if !strings.Contains(text, ":") {
		return ":" + text
	}
	return text
}

// Port is the port of a bind, such as 0.0.0.0:1883, :1883 or 1883; empty when it has none.
func Port(bind string) string {
	_, port, err := net.SplitHostPort(BindText(bind))
	if err != nil {
		return ""
	}
	return port
}

func listenerDefaults(kind string) Tree {
	t := Tree{
		"acceptors": int64(16), "access_rules": []any{"allow all"}, "enable": true, "enable_authn": true,
		"max_conn_rate": "infinity", "max_connections": "infinity", "mountpoint": "", "proxy_protocol": false,
		"proxy_protocol_timeout": "3s", "zone": "default",
		"tcp_options": Tree{
			"active_n": int64(100), "backlog": int64(1024), "buffer": "4KB", "high_watermark": "1MB",
			"keepalive": "none", "nodelay": true, "nolinger": false, "reuseaddr": true, "send_timeout": "15s",
			"send_timeout_close": true,
		},
	}
	if port, known := map[string]int64{"tcp": 1883, "ssl": 8883, "ws": 8083, "wss": 8084, "quic": 14567}[kind]; known {
		t["bind"] = port
	}
	if kind == "ssl" || kind == "wss" {
		t["ssl_options"] = sslDefaults(kind)
	}
	if kind == "ws" || kind == "wss" {
		t["websocket"] = websocketDefaults()
	}
	return t
}

func sslDefaults(kind string) Tree {
	t := Tree{
		"cacertfile": "${EMQX_ETC_DIR}/certs/cacert.pem", "certfile": "${EMQX_ETC_DIR}/certs/cert.pem",
		"ciphers": []any{}, "client_renegotiation": true, "depth": int64(10), "fail_if_no_peer_cert": false,
		"handshake_timeout": "15s", "hibernate_after": "5s", "honor_cipher_order": true,
		"keyfile": "${EMQX_ETC_DIR}/certs/key.pem", "log_level": "notice", "reuse_sessions": true,
		"secure_renegotiate": true, "verify": "verify_none", "versions": []any{"tlsv1.3", "tlsv1.2"},
	}
	if kind == "ssl" {
		t.Merge(Tree{
			"enable_crl_check": false, "gc_after_handshake": false,
			"ocsp": Tree{"enable_ocsp_stapling": false, "refresh_http_timeout": "15s", "refresh_interval": "5m"},
		})
	}
	return t
}

func websocketDefaults() Tree {
	return Tree{
		"allow_origin_absence": true, "check_origin_enable": false,
		"check_origins": "http://localhost:18083, http://127.0.0.1:18083", "compress": false,
		"deflate_opts": Tree{
			"client_context_takeover": "takeover", "client_max_window_bits": int64(15), "mem_level": int64(8),
			"server_context_takeover": "takeover", "server_max_window_bits": int64(15), "strategy": "default",
		},
		"fail_if_no_subprotocol": true, "idle_timeout": "7200s", "max_frame_size": "infinity", "mqtt_path": "/mqtt",
		"mqtt_piggyback": "multiple", "proxy_address_header": "x-forwarded-for", "proxy_port_header": "x-forwarded-port",
		"supported_subprotocols": "mqtt, mqtt-v3, mqtt-v3.1.1, mqtt-v5", "validate_utf8": true,
	}
}
