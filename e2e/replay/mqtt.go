package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// settle is how long a client is watched for packets that should not come.
const settle = 150 * time.Millisecond

// connectTo opens a client and keeps it under its name.
func (r *Runner) connectTo(ctx context.Context, name string, node int, o mqttclient.Options) (*mqttclient.Client, error) {
	port := ":1883"
	if o.WebSocket {
		port = ":8083"
	}
	o.Address = r.targets[node] + port
	o.ClientID = name
	if o.Version == 0 {
		o.Version = 5
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := mqttclient.Connect(ctx, o)
	if err != nil {
		return c, err
	}
	if old := r.clients[name]; old != nil {
		old.Close()
	}
	r.clients[name] = c
	return c, nil
}

// drop disconnects a client with DISCONNECT.
func (r *Runner) drop(name string) {
	if c := r.clients[name]; c != nil {
		c.Disconnect()
		delete(r.clients, name)
	}
}

// packetNames are the recorder's names.
func packetName(kind byte) string {
	names := map[byte]string{
		packets.Connack: "connack", packets.Suback: "suback", packets.Publish: "publish", packets.Disconnect: "disconnect",
		packets.Puback: "puback", packets.Pubrec: "pubrec", packets.Pubrel: "pubrel", packets.Pubcomp: "pubcomp",
		packets.Unsuback: "unsuback", packets.Pingresp: "pingresp",
	}
	return names[kind]
}

// describe puts an event into the recorder's form, without times and packet ids.
func describe(e mqttclient.Event) map[string]any {
	if e.Closed {
		return map[string]any{"event": "close"}
	}
	pk := e.Packet
	h := pk.FixedHeader
	m := map[string]any{
		"cmd": packetName(h.Type), "retain": h.Retain, "qos": float64(h.Qos), "dup": h.Dup, "length": float64(h.Remaining),
		"topic": nil,
	}
	code := "reasonCode"
	if pk.ProtocolVersion < 5 {
		code = "returnCode"
	}
	switch h.Type {
	case packets.Connack:
		m["sessionPresent"], m[code] = pk.SessionPresent, float64(pk.ReasonCode)
	case packets.Disconnect:
		m[code] = float64(pk.ReasonCode)
	case packets.Suback:
		granted := []any{}
		for _, qos := range pk.ReasonCodes {
			granted = append(granted, float64(qos))
		}
		m["granted"] = granted
	case packets.Publish:
		m["topic"], m["payload"] = pk.TopicName, string(pk.Payload)
	}
	if properties := describeProperties(pk.Properties); len(properties) > 0 {
		m["properties"] = properties
	}
	return m
}

func describeProperties(p packets.Properties) map[string]any {
	m := map[string]any{}
	for name, v := range map[string]uint32{
		"receiveMaximum": uint32(p.ReceiveMaximum), "maximumPacketSize": p.MaximumPacketSize, "topicAliasMaximum": uint32(p.TopicAliasMaximum),
	} {
		if v > 0 {
			m[name] = float64(v)
		}
	}
	for name, flag := range map[string]struct {
		given bool
		value byte
	}{
		"sharedSubscriptionAvailable":      {p.SharedSubAvailableFlag, p.SharedSubAvailable},
		"subscriptionIdentifiersAvailable": {p.SubIDAvailableFlag, p.SubIDAvailable},
		"wildcardSubscriptionAvailable":    {p.WildcardSubAvailableFlag, p.WildcardSubAvailable},
		"retainAvailable":                  {p.RetainAvailableFlag, p.RetainAvailable},
	} {
		if flag.given {
			m[name] = flag.value == 1
		}
	}
	for name, text := range map[string]string{
		"serverReference": p.ServerReference, "reasonString": p.ReasonString, "assignedClientIdentifier": p.AssignedClientID,
	} {
		if text != "" {
			m[name] = text
		}
	}
	return m
}

// comparePackets compares what a client saw with what was recorded of it. The end of the connection counts only
// where it was recorded.
func comparePackets(file, who string, want []map[string]any, got []mqttclient.Event) string {
	i := 0
	for _, w := range want {
		if w["event"] == "error" { // the recorder's library said so, no packet
			continue
		}
		if i >= len(got) {
			return fmt.Sprintf("%s: nothing where %v was recorded", who, firstOf(w))
		}
		g := describe(got[i])
		i++
		expected := map[string]any{}
		for key, v := range w {
			if key != "at" && key != "messageId" {
				expected[key] = v
			}
		}
		if d := (comparer{file: file}).differ(who, "", expected, g); d != "" {
			return d
		}
	}
	for _, extra := range got[i:] {
		if !extra.Closed {
			return fmt.Sprintf("%s: %v where nothing was recorded", who, firstOf(describe(extra)))
		}
	}
	return ""
}

func firstOf(m map[string]any) any {
	if cmd, ok := m["cmd"]; ok {
		return cmd
	}
	return m["event"]
}

func (rec *recording) seen() ([]map[string]any, error) {
	var list []map[string]any
	if len(rec.Seen) == 0 {
		return list, nil
	}
	if err := json.Unmarshal(rec.Seen, &list); err != nil {
		return nil, fmt.Errorf("read recording %s: %w", rec.name, err)
	}
	return list, nil
}

// mqttConnect connects a client as one was recorded to, and compares the packets it sees. The client stays.
func (r *Runner) mqttConnect(ctx context.Context, n, name string, node int, o mqttclient.Options) error {
	rec, err := r.file(n)
	if err != nil {
		return err
	}
	want, err := rec.seen()
	if err != nil {
		return err
	}
	if len(want) == 0 && rec.Result != nil {
		result := rec.Result
		delete(result, "payload")
		want = []map[string]any{result}
	}
	c, err := r.connectTo(ctx, name, node, o)
	var refused *mqttclient.RefusedError
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	packetsWanted := 0
	for _, w := range want {
		if w["cmd"] != nil {
			packetsWanted++
		}
	}
	_ = r.wait(ctx, "packets", 5*time.Second, func(context.Context) bool { return len(c.Events()) >= packetsWanted })
	timer := time.NewTimer(settle)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	r.report.compared(rec.name, comparePackets(rec.name, name, want, c.Events()))
	return nil
}
