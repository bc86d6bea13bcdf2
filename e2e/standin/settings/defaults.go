package settings

// Defaults is what EMQX has without any configuration, as far as the stand-in shows it.
func Defaults() Tree {
	return Tree{
		"node":    Tree{"name": "emqx@127.0.0.1", "data_dir": "data", "role": "core"},
		"cluster": Tree{"name": "emqxcl", "discovery_strategy": "manual"},
		"dashboard": Tree{
			"cors": false, "default_password": "public", "default_username": "admin", "swagger_support": true,
			"token_expired_time": "60m",
			"listeners": Tree{"http": Tree{
				"backlog": int64(1024), "bind": int64(18083), "inet6": false, "ipv6_v6only": false, "max_connections": int64(512),
				"num_acceptors": int64(2), "proxy_header": false, "send_timeout": "10s",
			}},
		},
		"license": Tree{"key": "default", "connection_high_watermark": "80%", "connection_low_watermark": "75%"},
		"listeners": Tree{
			"tcp": Tree{"default": Tree{"bind": "0.0.0.0:1883"}},
			"ssl": Tree{"default": Tree{"bind": "0.0.0.0:8883"}},
			"ws":  Tree{"default": Tree{"bind": "0.0.0.0:8083"}},
			"wss": Tree{"default": Tree{"bind": "0.0.0.0:8084"}},
		},
		"mqtt":          mqtt(),
		"alarm":         Tree{"actions": []any{"log", "publish"}, "size_limit": int64(1000), "validity_period": "24h"},
		"broker":        Tree{"enable_session_registry": true, "session_history_retain": "0s"},
		"sys_topics":    sysTopics(),
		"sysmon":        sysmon(),
		"log":           logging(),
		"file_transfer": fileTransfer(),
	}
}

func mqtt() Tree {
	return Tree{
		"await_rel_timeout": "300s", "client_attrs_init": []any{}, "clientid_override": "disabled",
		"exclusive_subscription": false, "idle_timeout": "15s", "ignore_loop_deliver": false,
		"keepalive_check_interval": "30s", "keepalive_multiplier": 1.5, "max_awaiting_rel": int64(100),
		"max_clientid_len": int64(65535), "max_inflight": int64(32), "max_mqueue_len": int64(1000), "max_packet_size": "1MB",
		"max_qos_allowed": int64(2), "max_subscriptions": "infinity", "max_topic_alias": int64(65535),
		"max_topic_levels": int64(128), "message_expiry_interval": "infinity", "mqueue_default_priority": "lowest",
		"mqueue_priorities": "disabled", "mqueue_store_qos0": true, "peer_cert_as_clientid": "disabled",
		"peer_cert_as_username": "disabled", "response_information": "", "retain_available": true,
		"retry_interval": "infinity", "server_keepalive": "disabled", "session_expiry_interval": "2h",
		"shared_subscription": true, "shared_subscription_initial_sticky_pick": "random",
		"shared_subscription_strategy": "round_robin", "strict_mode": false, "upgrade_qos": false,
		"use_username_as_clientid": false, "wildcard_subscription": true,
	}
}

func sysTopics() Tree {
	return Tree{
		"sys_event_messages": Tree{
			"client_connected": true, "client_disconnected": true, "client_subscribed": false, "client_unsubscribed": false,
		},
		"sys_heartbeat_interval": "30s", "sys_msg_interval": "1m",
	}
}

func sysmon() Tree {
	return Tree{
		"broker_pool_mailbox_size_alarm_threshold": int64(500), "mnesia_tm_mailbox_size_alarm_threshold": int64(500),
		"os": Tree{
			"cpu_check_interval": "60s", "cpu_high_watermark": "80%", "cpu_low_watermark": "60%", "mem_check_interval": "60s",
			"procmem_high_watermark": "5%", "sysmem_high_watermark": "70%",
		},
		"vm": Tree{
			"busy_dist_port": true, "busy_port": true, "large_heap": "32MB", "long_gc": "disabled", "long_schedule": "240ms",
			"process_check_interval": "30s", "process_high_watermark": "80%", "process_low_watermark": "60%",
		},
	}
}

func logging() Tree {
	file := func(path string) Tree {
		return Tree{
			"formatter": "text", "level": "warning", "path": path, "payload_encode": "text", "rotation_count": int64(10),
			"rotation_size": "50MB", "time_offset": "system", "timestamp_format": "auto", "enable": true,
		}
	}
	audit := file("${EMQX_LOG_DIR}/audit.log")
	delete(audit, "formatter")
	audit.Merge(Tree{
		"enable": false, "ignore_high_frequency_request": true, "level": "info", "max_filter_size": int64(5000),
	})
	return Tree{
		"audit": audit,
		"console": Tree{
			"enable": false, "formatter": "text", "level": "warning", "payload_encode": "text", "time_offset": "system",
			"timestamp_format": "auto",
		},
		"file":       Tree{"default": file("${EMQX_LOG_DIR}/emqx.log")},
		"throttling": Tree{"time_window": "1m"},
	}
}

func fileTransfer() Tree {
	return Tree{
		"assemble_timeout": "5m", "enable": false, "init_timeout": "10s", "store_segment_timeout": "5m",
		"storage": Tree{"local": Tree{
			"enable": true, "exporter": Tree{"local": Tree{"enable": true}},
			"segments": Tree{"gc": Tree{
				"interval": "1h", "maximum_segments_ttl": "24h", "minimum_segments_ttl": "5m",
			}},
		}},
	}
}
