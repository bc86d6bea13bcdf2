package settings

import (
	"regexp"
	"strconv"
	"strings"
)

// roots is every root of EMQX's configuration.
const roots = `actions ai alarm api_key audit authentication authorization auto_subscribe bridges broker cluster conn_congestion
connectors crl_cache dashboard delayed durable_queues durable_sessions durable_storage exhook file_transfer flapping_detect
force_gc force_shutdown gateway gcp_device license limiter listeners log message_queue message_transformation mq mqtt
multi_tenancy namespace node ocsp opentelemetry overload_protection plugins prometheus psk_authentication
queues retainer rewrite rpc rule_engine schema_registry schema_validation slow_subs sources stats streams
sys_topics sysmon tcp_listener telemetry topic_metrics trace zones`

// mqttFields is every field of the root mqtt.
const mqttFields = `await_rel_timeout client_attrs_init clientid_override exclusive_subscription idle_timeout ignore_loop_deliver
keepalive_backoff keepalive_check_interval keepalive_multiplier max_awaiting_rel max_clientid_len max_inflight
max_mqueue_len max_packet_size max_qos_allowed max_subscriptions max_topic_alias max_topic_levels message_expiry_interval
mqueue_default_priority mqueue_priorities mqueue_store_qos0 peer_cert_as_clientid peer_cert_as_username
response_information retain_available retry_interval server_keepalive session_expiry_interval shared_subscription
shared_subscription_initial_sticky_pick shared_subscription_strategy strict_mode subscription_max_qos_rules
upgrade_qos use_username_as_clientid wildcard_subscription`

const bytesize = `^(?i)([0-9]+)(b|kb|mb|gb)?$`

// KnownRoot reports whether EMQX has such a root.
func KnownRoot(root string) bool { return contains(roots, root) }

func contains(list, word string) bool {
	for _, w := range strings.Fields(list) {
		if w == word {
			return true
		}
	}
	return false
}

// ByteSize reports whether a value is a size to EMQX, such as 1MB or 4096.
func ByteSize(value any) bool {
	_, ok := Bytes(value)
	return ok
}

// Bytes reads such a size.
func Bytes(value any) (uint64, bool) {
	switch v := value.(type) {
	case int64:
		return uint64(max(v, 0)), v >= 0
	case string:
		parts := regexp.MustCompile(bytesize).FindStringSubmatch(v)
		if parts == nil {
			return 0, false
		}
		n, err := strconv.ParseUint(parts[1], 10, 32)
		shift := map[string]uint{"": 0, "b": 0, "kb": 10, "mb": 20, "gb": 30}[strings.ToLower(parts[2])]
		return n << shift, err == nil
	default:
		return 0, false
	}
}
