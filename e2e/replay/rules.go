package replay

import (
	"regexp"
	"strings"
)

// What is compared
//
// HTTP: the status; the headers content-type, allow, www-authenticate and retry-after, absence included; the body. A
// body that is JSON, whatever it is called, is compared as JSON: the same keys and the same types everywhere, the same
// texts, booleans and numbers, the same lengths and the same order of lists, with these exceptions:
//
//   - Numbers of a machine or a moment are compared by type only: see machineNumbers.
//   - Texts of a machine or a moment likewise: see machineTexts. Node names and addresses are translated first and then
//     compared.
//   - An Erlang stack trace in a message is left out; the reason before it is compared.
//   - Where the reason of a refused configuration is broken into lines is left out: it depends on the length of addresses.
//   - Lists that are sets are compared item by item with the same key: see setKeys.
//   - A client in a list of clients may have keys more than the recorded one: EMQX has some only for clients that
//     connected where they are now.
//   - Nodes of another release than the recorded one: see releaseKeys.
//
// Files whose content depends on chance have their own exceptions: see looseFiles.
//
// MQTT: the packets in their order; of each its type, its flags, its remaining length, session present, code,
// properties, granted QoS, topic and payload. Times and packet ids are not compared, nor whether the client library
// reported an error.
//
// Timelines: the same rows in the same order; between two rows the recorded time, give or take timelineTolerance.

// machineNumbers are keys whose numbers are not compared, with the reason.
var machineNumbers = map[string]string{ //nolint:gochecknoglobals // a table
	"load1": "machine", "load5": "machine", "load15": "machine", "uptime": "moment", "process_used": "machine",
	"process_available": "machine", "max_fds": "machine", "port": "client", "recv_pkt": "moment", "send_pkt": "moment",
}

// machineTexts are keys whose texts are not compared, with the reason.
var machineTexts = map[string]string{ //nolint:gochecknoglobals // a table
	"log_path": "machine", "sys_path": "machine", "memory_total": "machine", "memory_used": "machine",
	"otp_release": "release", "connected_at": "moment", "disconnected_at": "moment", "created_at": "moment",
}

// setKeys are the lists whose order is not compared, by what tells their items apart.
func setKey(item any) string {
	object, ok := item.(map[string]any)
	if !ok {
		return ""
	}
	for _, key := range []string{"clientid", "id", "node", "core_node"} {
		if _, ok := object[key].(string); ok {
			return key
		}
	}
	return ""
}

// looseFiles are further keys whose values are not compared in one file, with the reason.
var looseFiles = map[string]map[string]string{ //nolint:gochecknoglobals // a table
	"103": {"connections": "the first of the moved sessions may be on either recipient", "live_connections": "as before"},
	"114": {"connections": "chance: each session is moved to one of two recipients"},
	"121": {"node": "chance: each session is moved to one of two recipients"},
	"183": {"connections": "chance: each session is moved to one of two recipients"},
	"190": {"current_connections": "chance: where sessions that were moved back connected first"},
	"191": {
		"clientid": "chance: which sessions are where", "keepalive": "client", "expiry_interval": "client",
		"send_msg": "client", "recv_msg": "client", "send_msg.qos1": "client", "recv_msg.qos1": "client", "subscriptions_cnt": "client",
		"ip_address": "client", "node": "chance",
	},
	"199": {"connections": "chance: each session is moved to one of two recipients"},
	"311": {"connections": "chance: each session is moved to one of two recipients"},
	"321": {"conns": "the recorded nodes had sessions from before"},
}

// releaseKeys are keys that other releases have more, or fill in another way; they count only when the release is the
// recorded one.
var releaseKeys = map[string]string{ //nolint:gochecknoglobals // a table
	"version": "the release itself", "rel_vsn": "the release itself",
	"cluster": "/status has it since 5.9", "description": "/cluster has it since 5.9",
	"connection_eviction_rpc_timeout": "since 5.9", "session_eviction_rpc_timeout": "since 5.9",
}

// releaseFiles are compared only with nodes of the recorded release, for the reason given.
var releaseFiles = map[string]string{ //nolint:gochecknoglobals // a table
	"020": "licences differ between releases", "331": "licences differ between releases",
}

// machineKey reports whether the value under a key is one of a machine or a moment.
func machineKey(key string, text bool) bool {
	if text {
		_, ok := machineTexts[key]
		return ok
	}
	_, ok := machineNumbers[key]
	return ok || strings.HasSuffix(key, ".max")
}

// loose reports whether the value under a key is not compared in the file.
func loose(file, key string) bool {
	_, ok := looseFiles[number(file)][key]
	return ok
}

var termBreak = regexp.MustCompile(`(\\n|\n) +`)

// plainTerm leaves out of an error what is not compared.
func plainTerm(s string) string {
	if at := strings.Index(s, "\nReason: "); at >= 0 {
		return s[:at] + termBreak.ReplaceAllString(s[at:], "")
	}
	return withoutStack(s)
}

// withoutStack cuts the stack trace from an Erlang error.
func withoutStack(s string) string {
	if !strings.Contains(s, "{file,") && !strings.Contains(s, "{line,") {
		return s
	}
	for _, end := range []string{", [{", "[{"} {
		if i := strings.Index(s, end); i > 0 {
			return s[:i]
		}
	}
	return s
}
