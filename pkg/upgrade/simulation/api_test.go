package simulation

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// brokerAPI is EMQX's management API as a driver of one life of the operator sees it.
type brokerAPI struct{ by *operator }

// silence is how long a node that does not answer is waited for.
const silence = 4 * time.Second

// errRPC is what a node answers when another does not answer it: HTTP 500 with a text.
var errRPC = fmt.Errorf("%w: simulated: HTTP 500", emqx.ErrRemoteCall)

// reach lays a request on the desk and has it answered by the node, or not.
func (a brokerAPI) reach(ctx context.Context, operation string, node emqx.Node, credentials *emqx.Credentials, question bool, answer func(*broker) error) error {
	w := a.by.w
	var err error
	deadline, slow := time.Time{}, false
	asked := w.desk.ask(ctx, a.by, question, operation+" "+node.Name, func() time.Duration {
		now := w.now()
		if deadline.IsZero() {
			deadline = now.Add(silence)
			w.requests["emqx"]++
		}
		b := w.byURL(node.URL)
		switch {
		case a.by.dead:
			err = fmt.Errorf("%w: the operator is dead", emqx.ErrSilent)
		case now.Before(a.by.asleep):
			return a.by.asleep.Sub(now)
		case b == nil || !b.up(now):
			err = fmt.Errorf("%w: simulated: connection refused", emqx.ErrSilent)
		case now.Before(b.frozen) || question && operation == "evacuation" && b.evac != nil && now.Before(b.evac.stuck):
			if now.Before(deadline) {
				return min(silence, deadline.Sub(now))
			}
			err = fmt.Errorf("%w: simulated: no answer in time", emqx.ErrSilent)
		case credentials != nil && credentials.Secret != w.password:
			err = fmt.Errorf("%w: simulated", emqx.ErrUnauthorized)
		case !w.calm && !slow && w.once("slow answer", 300):
			slow = true
			w.happen("a slow answer")
			took := 1 + w.rng.IntN(3)
			w.unstoppable(operation, time.Duration(took)*time.Second)
			return time.Duration(took) * time.Second
		case !w.calm && w.once("rpc error", 500):
			w.happen("an RPC error")
			w.unstoppable(operation, time.Second)
			err = errRPC
		default:
			if credentials != nil {
				a.by.took = credentials.Secret
			}
			err = answer(b)
		}
		return 0
	})
	if asked != nil {
		return fmt.Errorf("%w: simulated: %w", emqx.ErrSilent, asked)
	}
	return err
}

// unstoppable notes that an evacuation goes on for a while, whoever wants it stopped.
func (w *world) unstoppable(operation string, duration time.Duration) {
	if operation == "stop" {
		w.truth.blind(w.now().Add(duration))
	}
}

func (w *world) byURL(url string) *broker {
	for _, b := range w.brokers {
		if !b.dead && strings.Contains(url, "//"+b.ip+":") {
			return b
		}
	}
	return nil
}

// lostAnswer is that an order was carried out and nobody learns of it.
func (w *world) lostAnswer() error {
	if !w.calm && w.once("answer of a node", 20) {
		w.happen("an order whose answer was lost")
		return fmt.Errorf("%w: simulated: the answer was lost", emqx.ErrSilent)
	}
	return nil
}

// Info is GET /nodes/:node. The counts of a node that boots are undefined.
func (a brokerAPI) Info(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (info emqx.NodeInfo, err error) {
	w := a.by.w
	err = a.reach(ctx, "info", node, &credentials, true, func(b *broker) error {
		known := b.joined || b.cookie != w.cookie
		info = emqx.NodeInfo{
			Node: b.name, Status: "running", Role: "core", Version: "6.0.1",
			Connections: emqx.Count{Known: known}, LiveConnections: emqx.Count{Known: known},
		}
		if known {
			info.Connections.Value, info.LiveConnections.Value = w.sessions(b), w.live(b)
		}
		return nil
	})
	return info, err
}

// Members is GET /cluster: the running nodes that it sees.
func (a brokerAPI) Members(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (names []string, err error) {
	w := a.by.w
	err = a.reach(ctx, "members", node, &credentials, true, func(b *broker) error {
		names = []string{b.name}
		for _, other := range ordered(w.brokers) {
			if b.joined && other != b && other.joined && !other.dead && w.sees(b, other) {
				names = append(names, other.name)
			}
		}
		return nil
	})
	return names, err
}

// Available is GET /load_rebalance/availability_check, which needs no key.
func (a brokerAPI) Available(ctx context.Context, node emqx.Node) (available bool, err error) {
	err = a.reach(ctx, "availability", node, nil, true, func(b *broker) error {
		available = !b.refuses()
		return nil
	})
	return available, err
}

// Licence is GET /license.
func (a brokerAPI) Licence(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (licence emqx.Licence, err error) {
	err = a.reach(ctx, "licence", node, &credentials, true, func(*broker) error {
		licence.Type = a.by.w.licence()
		return nil
	})
	return licence, err
}

// Delayed is GET /nodes/:node/stats.
func (a brokerAPI) Delayed(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (count emqx.Count, err error) {
	err = a.reach(ctx, "stats", node, &credentials, true, func(b *broker) error {
		count = emqx.Count{Value: b.delayed, Known: true}
		return nil
	})
	return count, err
}

// ListenerRunning is GET /listeners/:id.
func (a brokerAPI) ListenerRunning(ctx context.Context, node emqx.Node, credentials emqx.Credentials, id string) (bool, error) {
	err := a.reach(ctx, "listener "+id, node, &credentials, true, func(*broker) error { return nil })
	return err == nil, err
}

// Moves is GET /load_rebalance/status.
func (a brokerAPI) Moves(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (moves emqx.Moves, err error) {
	w := a.by.w
	err = a.reach(ctx, "evacuation", node, &credentials, true, func(b *broker) error {
		if r := w.donation(b); r != nil {
			moves.Donation = &emqx.Donation{State: r.state, Coordinator: r.coordinator.name}
			for _, recipient := range r.recipients {
				moves.Donation.Recipients = append(moves.Donation.Recipients, recipient.name)
			}
		}
		if b.evac == nil {
			return nil
		}
		status := &emqx.EvacuationStatus{
			State: b.evac.state, ConnEvictRate: b.evac.conn, SessEvictRate: b.evac.sess,
			InitialConnected: b.evac.initial, InitialSessions: b.evac.initSes,
		}
		for _, recipient := range w.available(b, b.evac) {
			status.Recipients = append(status.Recipients, recipient.name)
		}
		moves.Evacuation = status
		return nil
	})
	return moves, err
}

// Start is POST /load_rebalance/:node/evacuation/start.
func (a brokerAPI) Start(ctx context.Context, node emqx.Node, credentials emqx.Credentials, asked emqx.Evacuation) error {
	w := a.by.w
	return a.reach(ctx, "start", node, &credentials, false, func(b *broker) error {
		w.requests["evacuation start"]++
		switch {
		case b.evac != nil:
			return nil // already_started, which the client takes for success.
		case b.donates:
			return emqx.ErrAgentBusy
		}
		for _, recipient := range asked.Recipients {
			other := w.byName(recipient)
			switch {
			case other != nil && other.isFrozen(w.now()):
				return fmt.Errorf("%w: simulated: %s is frozen", emqx.ErrSilent, recipient)
			case other == nil || other.dead || !other.joined || other.refuses() || !w.sees(b, other):
				return fmt.Errorf("%w: %s", emqx.ErrRecipients, recipient)
			}
		}
		b.evac = &evacuation{
			state: emqx.StateWaitingHealthCheck, conn: asked.ConnEvictRate, sess: asked.SessEvictRate,
			waitTakeover: asked.WaitTakeover, recipients: asked.Recipients,
			initial: int32(w.live(b)), initSes: int32(w.sessions(b)),
		}
		b.stored = b.evac
		w.checkStart(a.by, b, asked)
		return w.lostAnswer()
	})
}

// Stop is POST /load_rebalance/:node/evacuation/stop.
func (a brokerAPI) Stop(ctx context.Context, node emqx.Node, credentials emqx.Credentials) error {
	w := a.by.w
	return a.reach(ctx, "stop", node, &credentials, false, func(b *broker) error {
		if b.evac != nil {
			w.note("evacuation of %s is stopped", b.name)
			w.checkStop(b)
		}
		b.evac, b.stored = nil, nil
		return w.lostAnswer()
	})
}

// LoadKeys is PUT /configs of the root api_key: each node reads the file that it has, which may be the old one for a while.
func (a brokerAPI) LoadKeys(ctx context.Context, node emqx.Node, credentials emqx.Credentials, _ string) error {
	w := a.by.w
	return a.reach(ctx, "load keys", node, &credentials, false, func(*broker) error {
		if password, exists := w.secretPassword(); exists && (w.calm || !w.once("file that is not there yet", 2)) {
			w.happen("API keys that running nodes read")
			w.password = password
		}
		return w.lostAnswer()
	})
}

// ForceLeave is DELETE /cluster/:node/force_leave.
func (a brokerAPI) ForceLeave(ctx context.Context, node emqx.Node, credentials emqx.Credentials, member string) error {
	w := a.by.w
	return a.reach(ctx, "force leave "+member, node, &credentials, false, func(b *broker) error {
		if other := w.byName(member); other != nil && other.joined && other.owner == b.owner {
			w.violate("made %s leave while it runs", member)
		}
		if w.members[member] { // Of one that never joined, EMQX knows nothing to forget.
			w.forget(member)
		}
		delete(w.members, member)
		return w.lostAnswer()
	})
}
