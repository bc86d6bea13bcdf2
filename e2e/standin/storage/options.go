package storage

import (
	"fmt"
	"strconv"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// Release is the first two numbers of an EMQX release.
type Release struct{ Major, Minor int }

// ReleaseOf reads a version such as 6.0.1. Of a text that is none both numbers are 0.
func ReleaseOf(version string) Release {
	var r Release
	if _, err := fmt.Sscanf(version, "%d.%d", &r.Major, &r.Minor); err != nil {
		return Release{}
	}
	return r
}

// Modern reports whether it is a 6.0 or later: transitions are told, sites are forgotten by API alone.
func (r Release) Modern() bool { return r.Major >= 6 }

// queuesOnByDefault is so until mq.enable became auto, which makes nothing before somebody uses a queue.
func (r Release) queuesOnByDefault() bool { return r.Major == 6 && r.Minor < 2 }

// Databases is what a node with this configuration opens, by name. Without any, durable storage is off.
func Databases(tree settings.Tree, r Release) map[string]Options {
	wanted := map[string]Options{}
	want := func(group string, names ...string) {
		for _, name := range names {
			wanted[name] = options(tree, group)
		}
	}
	if tree.Bool(false, "durable_sessions", "enable") {
		want("messages", "messages")
		if r.Modern() {
			want("sessions", "sessions")
			want("timers", "timers")
			want("shared_subs", "shared_subs")
		}
	}
	if r.Modern() && tree.Bool(r.queuesOnByDefault(), "mq", "enable") {
		want("mq_states", "mq_state")
		want("mq_messages", "mq_message_lastvalue", "mq_message_regular")
	}
	return wanted
}

// options reads durable_storage.GROUP, and below it what holds for all groups.
func options(tree settings.Tree, group string) Options {
	number := func(otherwise int, key string) int {
		text := tree.Text(tree.Text("", "durable_storage", key), "durable_storage", group, key)
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return otherwise
		}
		return n
	}
	return Options{Shards: number(16, "n_shards"), Sites: number(1, "n_sites"), Replication: number(3, "replication_factor")}
}
