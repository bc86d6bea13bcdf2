package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// keysGroup is the API key file: what of it is read, and when.
func keysGroup() group {
	return group{name: "keys", steps: []step{
		freshNodes(nodeA, nodeB),
		playing("521", "change the key file", playKeys),
		needsControl(action("a usual key file again", func(ctx context.Context, r *Runner) error {
			return r.withKeys(ctx, nodeA, recordedKeys)
		})),
		exchanges("522"),
		needsControl(action("add a key to the file", func(_ context.Context, r *Runner) error {
			return r.cfg.Control.Write(nodeA, keyFile, recordedKeys+"hot1:hs1\n")
		})),
		exchanges("523"),
		playing("524", "use the new key", func(ctx context.Context, r *Runner) error {
			rec, err := r.file("524")
			if err != nil {
				return err
			}
			return differs(r.keysDiffer(ctx, nodeA, rec.Answer))
		}),
	}}
}

// withKeys restarts a node with another key file.
func (r *Runner) withKeys(ctx context.Context, node int, keys string) error {
	r.cfg.Control.Configure(node, Settings{Keys: keys})
	if err := errors.Join(r.cfg.Control.Stop(node), r.cfg.Control.Start(node, false, others(node, 2))); err != nil {
		return err
	}
	return r.wait(ctx, "the API answers", 60*time.Second, func(ctx context.Context) bool {
		got, err := r.send(ctx, request{method: http.MethodGet, host: r.targets[node] + ":18083", path: "/api/v5/cluster", auth: "none"})
		if err != nil || got.status != http.StatusUnauthorized {
			return false
		}
		// A node that is in the cluster has the keys of the others.
		other, err := r.send(ctx, request{
			method: http.MethodGet, host: r.targets[nodeA+nodeB-node] + ":18083", path: "/api/v5/load_rebalance/availability_check", auth: "none",
		})
		return err == nil && other.status == http.StatusOK
	})
}

// playKeys goes through the rows of 521.
func playKeys(ctx context.Context, r *Runner) error {
	rec, err := r.file("521")
	if err != nil {
		return err
	}
	files := []struct {
		act  string
		node int
		keys string
	}{
		{"file: opkey:opsecret, viewkey", -1, ""}, {"file of B: opkey:newsecret", -1, ""},
		{"B restarted", nodeB, "opkey:newsecret\nnewkey:news\n"}, {"A restarted, its file", nodeA, recordedKeys},
		{"A restarted, file: opkey:opsecret only", nodeA, "opkey:opsecret\n"}, {"B restarted, file", nodeB, "opkey:opsecret\n"},
		{"A restarted, file: k2:s2", nodeA, "k2:s2\n"},
	}
	for _, file := range files {
		if file.node >= 0 {
			if err := r.withKeys(ctx, file.node, file.keys); err != nil {
				return err
			}
		}
		row, err := r.rowOf("521", file.act)
		if err != nil {
			return err
		}
		for _, name := range []string{"A", "B"} {
			node, _ := nodeNamed(name)
			want, _ := row[name].(map[string]any)
			if d := r.waitNoDifference(ctx, 20*time.Second, func(ctx context.Context) string { return r.keysDiffer(ctx, node, want) }); d != "" {
				return differs(file.act + ": " + d)
			}
		}
	}
	for _, raw := range rec.Rows {
		var row struct {
			Act, Text string
			Keys      []map[string]any
		}
		if json.Unmarshal(raw, &row) != nil || row.Keys == nil {
			continue
		}
		if err := r.withKeys(ctx, nodeA, row.Text); err != nil {
			return err
		}
		for _, key := range row.Keys {
			if d := r.keyDiffers(ctx, key); d != "" {
				return differs(row.Act + ": " + d)
			}
		}
	}
	return nil
}

// keysDiffer compares how a node answers to keys: 200, or a status with a code.
func (r *Runner) keysDiffer(ctx context.Context, node int, want map[string]any) string {
	for _, key := range keysOf(want) {
		if d := r.answerDiffers(ctx, node, key, http.MethodGet, "/api/v5/cluster", want[key]); d != "" {
			return d
		}
	}
	return ""
}

func (r *Runner) keyDiffers(ctx context.Context, key map[string]any) string {
	credentials := fmt.Sprint(key["credentials"])
	return firstText(
		r.answerDiffers(ctx, nodeA, credentials, http.MethodGet, "/api/v5/cluster", key["GET /cluster"]),
		r.answerDiffers(ctx, nodeA, credentials, http.MethodPost, "/api/v5/load_rebalance/emqx@127.0.0.11/evacuation/stop", key["POST evacuation/stop"]),
	)
}

func firstText(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

func (r *Runner) answerDiffers(ctx context.Context, node int, key, method, path string, want any) string {
	got, err := r.send(ctx, request{
		method: method, host: r.targets[node] + ":18083", path: r.translate.text(path), auth: "Basic " + key,
		header: map[string]string{"Accept": "application/json"},
	})
	if err != nil {
		return err.Error()
	}
	answer := any(float64(got.status))
	if object, isObject := got.body.(map[string]any); isObject && object["code"] != nil {
		answer = []any{answer, object["code"]}
	}
	if fmt.Sprint(answer) != fmt.Sprint(want) {
		return fmt.Sprintf("%s with %s on node %d: recorded %v, got %v", method, key, node, want, answer)
	}
	return ""
}

func licenceGroup() group {
	return group{name: "licence", steps: []step{freshNodes(nodeA), exchanges("531-541")}}
}

// limitGroup is the twenty-sixth session of a trial licence.
func limitGroup() group {
	return group{name: "licence limit", steps: []step{
		freshNodes(nodeA, nodeB), playing("542", "connect more clients than the licence allows", playLimit),
	}}
}

func playLimit(ctx context.Context, r *Runner) error {
	for i := range 25 {
		o := persistent(5)
		if i == 0 {
			o = clean(5)
		}
		if _, err := r.connectTo(ctx, fmt.Sprintf("l%d", i), i%2, o); err != nil {
			return err
		}
	}
	attempt := func(node int, version byte) string {
		_, err := r.connectTo(ctx, "over", node, clean(version))
		r.drop("over")
		var refused *mqttclient.RefusedError
		if errors.As(err, &refused) {
			return strconv.Itoa(int(refused.Code))
		}
		return strings.TrimSpace(fmt.Sprint(err))
	}
	for _, c := range []struct {
		what string
		node int
		v    byte
		want string
	}{{"A_v5", nodeA, 5, "151"}, {"A_v4", nodeA, 4, "3"}, {"B_v5", nodeB, 5, "151"}, {"B_v4", nodeB, 4, "3"}} {
		got := ""
		if err := r.wait(ctx, c.what, 30*time.Second, func(context.Context) bool {
			got = attempt(c.node, c.v)
			return got == c.want
		}); err != nil {
			return differs(fmt.Sprintf("%s: recorded %s some seconds later, got %s", c.what, c.want, got))
		}
	}
	old, err := r.connectTo(ctx, "l1", nodeA, persistent(5))
	if err != nil || !old.SessionPresent() {
		return differs(fmt.Sprintf("a client with a session comes to another node: recorded session present, got %v", err))
	}
	if _, err := r.connectTo(ctx, "l0", nodeB, clean(5)); err != nil {
		return differs(fmt.Sprintf("a connected clean client comes to another node: %v", err))
	}
	r.drop("l0")
	if err := r.wait(ctx, "a place is free", 30*time.Second, func(context.Context) bool {
		_, err := r.connectTo(ctx, "l0", nodeB, clean(5))
		return err == nil
	}); err != nil {
		return differs("a clean client that has left comes back: recorded some seconds later, got never")
	}
	return nil
}
