package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// listenerChange replays what was recorded of a listener: clients are connected, the request is sent, and then ports,
// clients and the list of listeners are compared. A recording that is a plain exchange is replayed as one.
func listenerChange(n string, ports map[string]string) step {
	s := step{what: "replay " + n, covers: []string{n}}
	s.do = func(ctx context.Context, r *Runner) error {
		rec, err := r.file(n)
		if err != nil {
			return nil //nolint:nilerr // it is not among the recordings
		}
		if rec.Listeners == nil {
			return exchanges(n).do(ctx, r)
		}
		for _, name := range keysOf(rec.Clients) {
			if r.clients[name] != nil {
				continue
			}
			node, o := listenerClient(name, ports)
			if c, err := r.connectAt(ctx, name, node, o); err == nil {
				r.clients[name] = c
			}
		}
		got, err := r.sendRecorded(ctx, rec)
		if err != nil {
			return err
		}
		if r.report.wants(rec.name) {
			r.report.compared(rec.name, r.compareListenerChange(ctx, rec, got))
		}
		return nil
	}
	return s
}

// connectAt connects to the port in the options' address.
func (r *Runner) connectAt(ctx context.Context, name string, node int, o mqttclient.Options) (*mqttclient.Client, error) {
	o.Address = r.targets[node] + o.Address
	o.ClientID = name
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := mqttclient.Connect(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", name, err)
	}
	return c, nil
}

// pid is how Erlang names a process.
var pid = regexp.MustCompile(`<\d+\.\d+\.\d+>`)

// reasonOf is the last part of a refusal. The recorder kept the end of long bodies only, in the form in which Python prints bytes.
func reasonOf(body any) string {
	text := fmt.Sprint(body)
	if m, isObject := body.(map[string]any); isObject {
		text = fmt.Sprint(m["errors"])
	}
	_, reason, found := strings.Cut(text, "Reason: ")
	if !found {
		return text
	}
	text = strings.NewReplacer(`\\n`, `\n`, `\n`, "\n", `\"`, `"`, `'}`, "", `"}`, `"}`).Replace(reason)
	text = regexp.MustCompile(`\\?\n *`).ReplaceAllString(text, "")
	return pid.ReplaceAllString(strings.TrimSpace(text), "<pid>")
}

func (r *Runner) compareListenerChange(ctx context.Context, rec *recording, got reply) string {
	if got.status != rec.Response.Status {
		return fmt.Sprintf("status: recorded %d, got %d %s", rec.Response.Status, got.status, short(string(got.raw)))
	}
	if object, isObject := rec.Response.Body.(map[string]any); isObject && object["code"] != nil {
		if d := r.comparer(rec.name).differ("$", "", object, got.body); d != "" {
			return d
		}
	} else if want, have := reasonOf(rec.Response.Body), reasonOf(got.body); want != have {
		return fmt.Sprintf("reason: recorded %s, got %s", want, have)
	}
	// Nodes change one after the other, and connections end a moment after their listener.
	return r.waitNoDifference(ctx, 5*time.Second, func(ctx context.Context) string { return r.listenerDifference(ctx, rec) })
}

// waitNoDifference looks until nothing differs, and returns what did differ at last.
func (r *Runner) waitNoDifference(ctx context.Context, limit time.Duration, look func(context.Context) string) string {
	difference := "not looked at"
	_ = r.wait(ctx, "no difference", limit, func(ctx context.Context) bool {
		if d := look(ctx); ctx.Err() == nil {
			difference = d
		}
		return difference == ""
	})
	return difference
}

func (r *Runner) listenerDifference(ctx context.Context, rec *recording) string {
	if len(rec.Ports) > 0 {
		last := rec.Ports[len(rec.Ports)-1]
		for _, key := range keysOf(last) {
			name, port, found := strings.Cut(key, ":")
			if node, known := nodeNamed(name); found && known {
				if now := r.port(ctx, node, port); now != last[key] {
					return fmt.Sprintf("port %s: recorded %v, got %s", key, last[key], now)
				}
			}
		}
	}
	for _, name := range keysOf(rec.Clients) {
		closed := true
		if c := r.clients[name]; c != nil {
			select {
			case <-c.Done():
			default:
				closed = false
			}
		}
		if want := recordedClosed(rec, name); closed != want {
			return fmt.Sprintf("client %s: recorded closed %t, got %t", name, want, closed)
		}
	}
	return r.listenersDiffer(ctx, rec)
}

func recordedClosed(rec *recording, name string) bool {
	if rec.Closed != nil {
		return rec.Closed[name]
	}
	object, _ := rec.Clients[name].(map[string]any)
	return object["closed_ms_after_the_call"] != nil
}

// listenersDiffer compares the keys that were recorded of each listener.
func (r *Runner) listenersDiffer(ctx context.Context, rec *recording) string {
	got, err := r.api(ctx, http.MethodGet, nodeA, "/api/v5/listeners?type=tcp", nil)
	if err != nil {
		return err.Error()
	}
	list, _ := got.body.([]any)
	if len(list) != len(rec.Listeners) {
		return fmt.Sprintf("%d listeners recorded, got %d", len(rec.Listeners), len(list))
	}
	byID := func(list []any) {
		sort.Slice(list, func(i, j int) bool {
			return fmt.Sprint(list[i].(map[string]any)["id"]) < fmt.Sprint(list[j].(map[string]any)["id"])
		})
	}
	byID(list)
	byID(rec.Listeners)
	for i, want := range rec.Listeners {
		have, _ := list[i].(map[string]any)
		for _, key := range keysOf(want.(map[string]any)) {
			value := r.translate.value(want.(map[string]any)[key])
			if d := r.comparer(rec.name).differ(fmt.Sprintf("listeners[%d].%s", i, key), key, value, have[key]); d != "" {
				return d
			}
		}
	}
	return ""
}

// readAll is the text of a configuration.
func (r *Runner) configText(ctx context.Context, node int, root string) (string, error) {
	got, err := r.send(ctx, request{
		method: http.MethodGet, host: r.targets[node] + ":18083", path: "/api/v5/configs?key=" + root, auth: "Basic opkey:opsecret",
		header: map[string]string{"Accept": "text/plain"},
	})
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(got.raw), nil
}
