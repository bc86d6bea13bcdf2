package evacuate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
)

// fakeNode is a node of a broker that does what it is told at once.
type fakeNode struct {
	name       string
	frozen     bool
	evacuation *emqx.EvacuationStatus
	donation   *emqx.Donation
	starts     int
	stops      int
	forget     int           // How often it forgets what it was told.
	slow       time.Duration // How long an order takes.
	refuses    error         // What it says to an order.
	panics     bool
	late       time.Duration // How long its questions take.
	lateCount  time.Duration // How long it takes to count its clients.
	mute       bool          // It says nothing about its evacuation.
	lateAnswer bool          // It starts an evacuation, and says so for ever later.
}

type fakeAPI struct {
	mu     sync.Mutex
	nodes  map[string]*fakeNode
	left   []string
	secret string
	asked  map[string]int
	runs   []string // Members that run besides a and b.

	storage map[string]*emqx.Storage // What each node tells of durable storage; nil for none.
	orders  []string                 // Those about storage.
	refusal error                    // What is said to them.
	delayed int64                    // How many delayed messages each node has; it does not tell that there are none.
	loads   int                      // How often the nodes were told to read their keys.
	file    string                   // The password in the file that they read then.
}

func (f *fakeAPI) node(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (*fakeNode, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[node.Name]++
	n := f.nodes[node.Name]
	if n.frozen {
		f.mu.Unlock()
		timer := time.NewTimer(4 * time.Second)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		f.mu.Lock()
		return nil, emqx.ErrSilent
	}
	if credentials.Secret != f.secret {
		return nil, fmt.Errorf("node: %w", emqx.ErrUnauthorized)
	}
	return n, nil
}

func (f *fakeAPI) get(name string) fakeNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.nodes[name]
}

func (f *fakeAPI) change(name string, change func(*fakeNode)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.nodes[name])
}

func (f *fakeAPI) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[name]
}

func (f *fakeAPI) gone() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.left)
}

func (f *fakeAPI) Info(ctx context.Context, node emqx.Node, c emqx.Credentials) (emqx.NodeInfo, error) {
	n, err := f.node(ctx, node, c)
	if err == nil && f.get(n.name).panics {
		panic("a bug")
	}
	if err == nil {
		time.Sleep(f.get(n.name).lateCount)
	}
	return emqx.NodeInfo{Node: node.Name, Status: "running", Connections: emqx.Count{Value: 5, Known: true}, LiveConnections: emqx.Count{Value: 5, Known: true}}, err
}

func (f *fakeAPI) Members(ctx context.Context, node emqx.Node, c emqx.Credentials) ([]string, error) {
	n, err := f.node(ctx, node, c)
	if err != nil {
		return nil, err
	}
	time.Sleep(f.get(n.name).late)
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{"b", "a"}, f.runs...), nil
}

func (f *fakeAPI) LoadKeys(ctx context.Context, node emqx.Node, c emqx.Credentials, _ string) error {
	_, err := f.node(ctx, node, c)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.loads++
		if f.file != "" {
			f.secret = f.file
		}
	}
	return err
}

func (f *fakeAPI) Licence(ctx context.Context, node emqx.Node, c emqx.Credentials) (emqx.Licence, error) {
	_, err := f.node(ctx, node, c)
	return emqx.Licence{Type: emqx.LicenceCommunity}, err
}

func (f *fakeAPI) Delayed(ctx context.Context, node emqx.Node, c emqx.Credentials) (emqx.Count, error) {
	_, err := f.node(ctx, node, c)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.delayed == 0 {
		err = emqx.ErrForbidden
	}
	return emqx.Count{Value: f.delayed, Known: true}, err
}

func (f *fakeAPI) Available(ctx context.Context, node emqx.Node) (bool, error) {
	n, err := f.node(ctx, node, emqx.Credentials{Secret: f.secret})
	return err == nil && f.get(n.name).evacuation == nil && f.get(n.name).donation == nil, err
}

func (f *fakeAPI) ListenerRunning(ctx context.Context, node emqx.Node, c emqx.Credentials, id string) (bool, error) {
	_, err := f.node(ctx, node, c)
	return id == "tcp:default", err
}

func (f *fakeAPI) Moves(ctx context.Context, node emqx.Node, c emqx.Credentials) (emqx.Moves, error) {
	n, err := f.node(ctx, node, c)
	if err != nil {
		return emqx.Moves{}, err
	}
	if f.get(n.name).mute {
		patient, cancel := context.WithTimeout(ctx, 4*time.Second)
		defer cancel()
		<-patient.Done()
		return emqx.Moves{}, fmt.Errorf("%w: %w", emqx.ErrSilent, patient.Err())
	}
	return emqx.Moves{Evacuation: f.get(n.name).evacuation, Donation: f.get(n.name).donation}, nil
}

func (f *fakeAPI) Start(ctx context.Context, node emqx.Node, c emqx.Credentials, e emqx.Evacuation) error {
	n, err := f.node(ctx, node, c)
	if err != nil {
		return err
	}
	if slow := f.get(n.name).slow; slow > 0 {
		time.Sleep(slow)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n.starts++
	if n.refuses != nil {
		return n.refuses
	}
	if n.forget--; n.forget < 0 {
		n.evacuation = &emqx.EvacuationStatus{State: emqx.StateEvictingConns, ConnEvictRate: e.ConnEvictRate, SessEvictRate: e.SessEvictRate, Recipients: e.Recipients}
	}
	if n.lateAnswer {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return ctx.Err()
	}
	return nil
}

func (f *fakeAPI) Stop(ctx context.Context, node emqx.Node, c emqx.Credentials) error {
	_, err := f.node(ctx, node, c)
	if err == nil {
		f.change(node.Name, func(n *fakeNode) { n.evacuation = nil })
	}
	return err
}

func (f *fakeAPI) ForceLeave(ctx context.Context, node emqx.Node, c emqx.Credentials, member string) error {
	if _, err := f.node(ctx, node, c); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = append(f.left, member)
	return nil
}

func (f *fakeAPI) Storage(ctx context.Context, node emqx.Node, c emqx.Credentials) (emqx.Storage, error) {
	if _, err := f.node(ctx, node, c); err != nil {
		return emqx.Storage{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.storage[node.Name] == nil {
		return emqx.Storage{}, fmt.Errorf("ds_sites: %w", emqx.ErrStorageDisabled)
	}
	return *f.storage[node.Name], nil
}

func (f *fakeAPI) SetReplicas(ctx context.Context, node emqx.Node, c emqx.Credentials, database string, sites []string) error {
	if _, err := f.node(ctx, node, c); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.orders = append(f.orders, fmt.Sprintf("%s: %s on %v", node.Name, database, sites))
	return f.refusal
}

func (f *fakeAPI) ForgetSite(ctx context.Context, node emqx.Node, c emqx.Credentials, site string) error {
	if _, err := f.node(ctx, node, c); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.orders = append(f.orders, node.Name+": forget "+site)
	return f.refusal
}

// drive runs a test with a driver over two nodes, a and b, in virtual time.
func drive(t *testing.T, test func(t *testing.T, f *fakeAPI, d *Driver, changes func() int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAPI{nodes: map[string]*fakeNode{"a": {name: "a"}, "b": {name: "b"}}, asked: map[string]int{}, secret: "new"}
		var changes atomic.Int64
		reads := 0
		d := NewDriver(Config{
			API: f, Logger: logr.Discard(), Changed: func() { changes.Add(1) },
			Credentials: func(context.Context) ([]emqx.Credentials, error) {
				if reads++; reads == 1 {
					return []emqx.Credentials{{Key: "k", Secret: "old"}}, nil
				}
				return []emqx.Credentials{{Key: "k", Secret: "new"}}, nil
			},
		})
		defer d.Close()
		test(t, f, d, func() int { return int(changes.Load()) })
	})
}

func pass(duration time.Duration) {
	time.Sleep(duration)
	synctest.Wait()
}

func goal(busy bool, a, b Intent, absent ...string) Goal {
	evacuation := emqx.Evacuation{ConnEvictRate: 5, SessEvictRate: 5, Recipients: []string{"b"}}
	return Goal{Busy: busy, Absent: absent, Nodes: []NodeGoal{
		{Node: emqx.Node{Name: "a", URL: "http://a"}, Order: Order{Intent: a, Evacuation: evacuation}, Listeners: []string{"tcp:default", "ssl:default"}},
		{Node: emqx.Node{Name: "b", URL: "http://b"}, Order: Order{Intent: b}},
	}}
}

func TestDriverDoesNothingBeforeAGoal(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, changes func() int) {
		pass(time.Hour)
		require.Zero(t, f.count("a"))
		require.Zero(t, changes())
		require.Empty(t, d.Observation().Nodes)
	})
}

// TestNextLifeIsAskedAnew: what was known of a container says nothing of the next.
func TestNextLifeIsAskedAnew(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		lives := func(life string) Goal {
			goal := goal(true, Serve, Serve)
			goal.Nodes[0].Life = life
			return goal
		}
		d.Pursue(lives("c1"))
		pass(3 * time.Second)
		require.True(t, d.Observation().Nodes["a"].Known())
		require.Equal(t, "c1", d.Observation().Nodes["a"].Life)
		f.change("a", func(n *fakeNode) { n.frozen = true })
		d.Pursue(lives("c2"))
		require.True(t, d.Observation().Nodes["a"].Seen.IsZero())
		pass(10 * time.Second)
		require.True(t, d.Observation().Nodes["a"].Seen.IsZero())
		require.Equal(t, "c2", d.Observation().Nodes["a"].Life)
		require.NotEmpty(t, d.Observation().Nodes["a"].Failure)
	})
}

// TestLicenceIsAskedWhereItMatters: of a node of which it does not, nobody asks; what was told stays known while it is silent.
func TestLicenceIsAskedWhereItMatters(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		asked := goal(true, Serve, Serve)
		asked.Nodes[0].Licence = true
		d.Pursue(asked)
		pass(3 * time.Second)
		require.True(t, d.Observation().Nodes["a"].LicenceKnown)
		require.Equal(t, emqx.LicenceCommunity, d.Observation().Nodes["a"].Licence.Type)
		require.False(t, d.Observation().Nodes["b"].LicenceKnown)
		f.change("a", func(n *fakeNode) { n.frozen = true })
		pass(10 * time.Second)
		require.NotEmpty(t, d.Observation().Nodes["a"].Failure)
		require.True(t, d.Observation().Nodes["a"].LicenceKnown)
	})
}

func TestDriverConverges(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.change("a", func(n *fakeNode) { n.forget = 2 })
		d.Pursue(goal(true, Evacuate, Serve))
		require.EqualValues(t, 5, d.Observation().Nodes["a"].AskedConnRate, "what is about to be ordered shows at once")
		pass(5 * time.Second)
		require.Equal(t, 3, f.get("a").starts, "an evacuation that the broker forgot is started again")
		a := d.Observation().Nodes["a"]
		require.Equal(t, emqx.StateEvictingConns, a.Evacuation.State)
		require.Equal(t, []string{"a", "b"}, a.Members)
		require.Equal(t, map[string]bool{"tcp:default": true, "ssl:default": false}, a.Listeners)
		require.NotEmpty(t, a.Samples)

		d.Pursue(goal(true, Serve, Serve))
		pass(2 * time.Second)
		require.Nil(t, f.get("a").evacuation)
		require.Zero(t, d.Observation().Nodes["a"].AskedConnRate, "what is over is not counted any more")
	})
}

func TestFrozenNodeDelaysNobody(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(goal(true, Serve, Serve))
		pass(3 * time.Second)
		f.change("a", func(n *fakeNode) { n.frozen = true })
		frozenAt := time.Now()
		pass(time.Minute)
		a, b := d.Observation().Nodes["a"], d.Observation().Nodes["b"]
		require.False(t, a.Known())
		require.EqualValues(t, 5, a.Info.LiveConnections.Value, "what was known is kept")
		require.WithinDuration(t, frozenAt, a.Seen, 2*time.Second)
		require.True(t, b.Known())
		require.WithinDuration(t, time.Now(), b.Seen, 2*time.Second, "the view of the other stays fresh")
		f.change("a", func(n *fakeNode) { n.frozen = false })
		pass(10 * time.Second)
		require.True(t, d.Observation().Nodes["a"].Known())
	})
}

func TestSlowOrderMakesNobodyBlind(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.change("a", func(n *fakeNode) { n.slow = 20 * time.Second })
		d.Pursue(goal(true, Evacuate, Serve))
		pass(10 * time.Second)
		a := d.Observation().Nodes["a"]
		require.True(t, a.Known())
		require.WithinDuration(t, time.Now(), a.Seen, time.Second, "the node is asked while its order is under way")
		require.Nil(t, a.Evacuation)
		require.Zero(t, f.get("a").starts)

		d.Pursue(goal(true, Serve, Serve))
		pass(5 * time.Second)
		require.EqualValues(t, 5, d.Observation().Nodes["a"].AskedConnRate, "the order that is under way counts although nobody wants it any more")
		pass(10 * time.Second)
		require.Equal(t, 1, f.get("a").starts, "an order is not given twice")
		require.Nil(t, f.get("a").evacuation, "what was started late is stopped")
		require.Zero(t, d.Observation().Nodes["a"].AskedConnRate)
	})
}

func TestStartIsPutOffAndGivenUp(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(goal(true, Serve, Serve))
		pass(3 * time.Second)
		delayed := goal(true, Evacuate, Serve)
		delayed.Nodes[0].StartPhase = 500 * time.Millisecond
		d.Pursue(delayed)
		pass(400 * time.Millisecond)
		require.Zero(t, f.get("a").starts)
		require.EqualValues(t, 5, d.Observation().Nodes["a"].AskedConnRate, "what is about to be ordered counts")
		pass(200 * time.Millisecond)
		require.Equal(t, 1, f.get("a").starts)

		d.Pursue(goal(true, Serve, Serve))
		pass(3 * time.Second)
		d.Pursue(delayed)
		pass(400 * time.Millisecond)
		d.Pursue(goal(true, Serve, Serve))
		pass(3 * time.Second)
		require.Equal(t, 1, f.get("a").starts, "what nobody wants any more is not started")
		require.Zero(t, d.Observation().Nodes["a"].AskedConnRate)
	})
}

func TestRefusedOrderIsToldAndRepeated(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.change("a", func(n *fakeNode) { n.refuses = emqx.ErrAgentBusy })
		d.Pursue(goal(true, Evacuate, Serve))
		pass(10 * time.Second)
		a := d.Observation().Nodes["a"]
		require.True(t, a.Known(), "a node that does not obey is known all the same")
		require.Equal(t, emqx.ErrAgentBusy.Error(), a.OrderFailure)
		require.InDelta(t, 10, f.get("a").starts, 1, "once a second")
		f.change("a", func(n *fakeNode) { n.refuses = nil })
		pass(2 * time.Second)
		a = d.Observation().Nodes["a"]
		require.NotNil(t, a.Evacuation)
		require.Empty(t, a.OrderFailure)
	})
}

func TestOrderThatDoesNotHelpIsRepeatedOnceASecond(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.change("a", func(n *fakeNode) { n.forget = 1000 })
		d.Pursue(goal(true, Evacuate, Serve))
		pass(10 * time.Second)
		require.InDelta(t, 10, f.get("a").starts, 1)
	})
}

func TestOrderWhoseAnswerWasLostIsCountedForAMinute(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.change("a", func(n *fakeNode) { n.refuses = emqx.ErrSilent })
		d.Pursue(goal(true, Evacuate, Serve))
		pass(2500 * time.Millisecond)
		d.Pursue(goal(true, Serve, Serve))
		pass(orderEcho - 2*time.Second)
		require.EqualValues(t, 5, d.Observation().Nodes["a"].AskedConnRate)
		pass(4 * time.Second)
		require.Zero(t, d.Observation().Nodes["a"].AskedConnRate)
	})
}

func TestMembersKnowSinceWhen(t *testing.T) {
	drive(t, func(t *testing.T, _ *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(goal(true, Serve, Serve))
		pass(2500 * time.Millisecond)
		since := d.Observation().Nodes["a"].MembersSince
		require.False(t, since.IsZero())
		pass(5 * time.Second)
		a := d.Observation().Nodes["a"]
		require.Equal(t, since, a.MembersSince)
		require.True(t, a.Seen.After(since))
	})
}

func TestIdleDriverAsksSeldomAndIsQuiet(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, changes func() int) {
		d.Pursue(goal(false, Serve, Serve))
		pass(10 * time.Second)
		before, told := f.count("a"), changes()
		pass(10 * time.Minute)
		require.LessOrEqual(t, f.count("a")-before, 21*6, "every 30 s, six questions")
		require.Equal(t, told, changes(), "nothing changed, nobody is woken")
	})
}

func TestAbsentMembersAreMadeToLeave(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.change("b", func(n *fakeNode) { n.frozen = true })
		d.Pursue(goal(true, Evacuate, Serve, "gone"))
		pass(20 * time.Second)
		require.Empty(t, f.gone(), "a node on its way out does not speak for the cluster")
		require.Contains(t, d.Observation().Failure, "no node of the cluster answers")
		f.change("b", func(n *fakeNode) { n.frozen = false })
		pass(20 * time.Second)
		require.Equal(t, []string{"gone"}, f.gone())
		require.True(t, d.Observation().Left["gone"])
		require.Empty(t, d.Observation().Failure)
		d.Pursue(goal(true, Evacuate, Serve))
		require.Empty(t, d.Observation().Left, "what is not asked about is forgotten")
	})
}

// TestMemberThatRunsIsNotMadeToLeave: whoever says that it has left Kubernetes may not have heard of its pod yet.
func TestMemberThatRunsIsNotMadeToLeave(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.runs = []string{"new"}
		d.Pursue(goal(true, Serve, Serve))
		pass(2 * time.Second)
		d.Pursue(goal(true, Serve, Serve, "new"))
		pass(20 * time.Second)
		require.Empty(t, f.gone())
		require.Contains(t, d.Observation().Failure, "node new still runs")
		f.mu.Lock()
		f.runs = nil
		f.mu.Unlock()
		pass(20 * time.Second)
		require.Equal(t, []string{"new"}, f.gone())
	})
}

// TestNodeThatMovesSessionsMayBeMute: it answers all else, and counts as known.
func TestNodeThatMovesSessionsMayBeMute(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(goal(true, Observe, Serve))
		f.change("a", func(n *fakeNode) { n.evacuation = &emqx.EvacuationStatus{State: emqx.StateEvictingSessions} })
		pass(3 * time.Second)
		f.change("a", func(n *fakeNode) { n.mute = true })
		for range 30 {
			pass(time.Second)
			a := d.Observation().Nodes["a"]
			require.True(t, a.Known(), a.Failure)
			require.Less(t, time.Since(a.Seen), 3*time.Second)
			require.Equal(t, emqx.StateEvictingSessions, a.Evacuation.State)
		}
		f.change("b", func(n *fakeNode) { n.mute = true })
		pass(10 * time.Second)
		require.False(t, d.Observation().Nodes["b"].Known(), "nobody knows whether it is evacuated")
	})
}

// TestLateCountIsNoSample: clients that were counted a second after the beat are not added up with those of the beat.
func TestLateCountIsNoSample(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(goal(true, Serve, Serve))
		pass(3 * time.Second)
		before := len(d.Observation().Nodes["a"].Samples)
		require.NotZero(t, before)
		f.change("a", func(n *fakeNode) { n.lateCount = time.Second })
		pass(4 * time.Second)
		require.Len(t, d.Observation().Nodes["a"].Samples, before)
		require.True(t, d.Observation().Nodes["a"].Known())
	})
}

// TestStopDoesNotWaitForALook: evictions that shall stop do, also while the node takes long to tell how it is.
func TestStopDoesNotWaitForALook(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(goal(true, Evacuate, Serve))
		pass(3 * time.Second)
		require.NotNil(t, f.get("a").evacuation)
		f.change("a", func(n *fakeNode) { n.late = 3 * time.Second })
		pass(1500 * time.Millisecond) // It is being asked.
		d.Pursue(goal(true, Serve, Serve))
		synctest.Wait()
		require.Nil(t, f.get("a").evacuation)
	})
}

// TestStartWhoseAnswerIsLateIsStopped: nobody has seen yet whether it runs.
func TestStartWhoseAnswerIsLateIsStopped(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(goal(true, Serve, Serve))
		pass(2500 * time.Millisecond)
		f.change("a", func(n *fakeNode) { n.lateAnswer = true })
		d.Pursue(goal(true, Evacuate, Serve))
		synctest.Wait()
		require.NotNil(t, f.get("a").evacuation, "it runs, and its node has not said so")
		d.Pursue(goal(true, Serve, Serve))
		synctest.Wait()
		require.Nil(t, f.get("a").evacuation)
	})
}

func TestRefusedKeyIsReadAgain(t *testing.T) {
	drive(t, func(t *testing.T, _ *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(goal(true, Serve, Serve))
		synctest.Wait()
		a, b := d.Observation().Nodes["a"], d.Observation().Nodes["b"]
		require.True(t, a.Refusal == Unauthorized || b.Refusal == Unauthorized, "whoever came first")
		pass(2 * time.Second)
		require.True(t, d.Observation().Nodes["a"].Known(), "the Secret was read again")
	})
}

func TestNodeThatMovedOrWentIsForgotten(t *testing.T) {
	drive(t, func(t *testing.T, _ *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(goal(true, Serve, Serve))
		pass(3 * time.Second)
		require.Len(t, d.Observation().Nodes, 2)
		one := goal(true, Serve, Serve)
		one.Nodes = one.Nodes[:1]
		d.Pursue(one)
		require.Len(t, d.Observation().Nodes, 1)
		pass(3 * time.Second)
		require.Len(t, d.Observation().Nodes, 1, "what was under way is not published any more")
	})
}

func TestFailureToReadTheKeyIsToldAndRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAPI{nodes: map[string]*fakeNode{"a": {name: "a"}, "b": {name: "b"}}, asked: map[string]int{}, secret: "s"}
		var failing atomic.Bool
		failing.Store(true)
		d := NewDriver(Config{API: f, Logger: logr.Discard(), Changed: func() {}, Credentials: func(context.Context) ([]emqx.Credentials, error) {
			if failing.Load() {
				return nil, errors.New("no such Secret")
			}
			return []emqx.Credentials{{Secret: "s"}}, nil
		}})
		defer d.Close()
		d.Pursue(goal(true, Serve, Serve))
		pass(3 * time.Second)
		require.Equal(t, "no such Secret", d.Observation().Nodes["a"].Failure)
		require.Zero(t, f.count("a"), "without a key nobody is asked")
		failing.Store(false)
		pass(3 * time.Second)
		require.True(t, d.Observation().Nodes["a"].Known())
	})
}

// TestFocus: while clients are moved, a node is asked each second for what matters, and every fifth for all.
func TestFocus(t *testing.T) {
	for _, tt := range []struct {
		focus        Focus
		fewest, most int
	}{
		{FocusAll, 76, 88}, {FocusClients, 28, 40}, {FocusEvacuation, 46, 58},
	} {
		drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
			g := goal(true, Serve, Serve)
			g.Nodes[0].Listeners, g.Nodes[0].Focus = nil, tt.focus
			g.Storage.Busy = false
			d.Pursue(g)
			pass(10 * time.Second)
			before := f.count("a")
			pass(20 * time.Second)
			asked := f.count("a") - before
			require.GreaterOrEqual(t, asked, tt.fewest, tt.focus)
			require.LessOrEqual(t, asked, tt.most, tt.focus)
			require.Less(t, time.Since(d.Observation().Nodes["a"].Seen), 1100*time.Millisecond)
			require.Len(t, d.Observation().Nodes["a"].Members, 2)
			require.True(t, d.Observation().Nodes["a"].Available)
		})
	}
}

// TestDelayed: delayed messages are asked for where the goal says so. That nobody tells is no failure.
func TestDelayed(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, changes func() int) {
		g := goal(true, Serve, Serve)
		g.Nodes[0].Delayed = true
		d.Pursue(g)
		pass(2 * time.Second)
		require.True(t, d.Observation().Nodes["a"].Known())
		require.Zero(t, d.Observation().Nodes["a"].Delayed)
		f.mu.Lock()
		f.delayed = 3
		f.mu.Unlock()
		before := changes()
		pass(6 * time.Second)
		require.Equal(t, emqx.Count{Value: 3, Known: true}, d.Observation().Nodes["a"].Delayed)
		require.Zero(t, d.Observation().Nodes["b"].Delayed)
		require.Greater(t, changes(), before)
	})
}

// TestEvacuationOfAStayingNodeIsSeen: somebody else started it. It is noticed within the five seconds in which all is asked, and
// stopped.
func TestEvacuationOfAStayingNodeIsSeen(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		g := goal(true, Serve, Serve)
		g.Nodes[0].Focus = FocusClients
		d.Pursue(g)
		pass(10 * time.Second)
		f.change("a", func(n *fakeNode) { n.evacuation = &emqx.EvacuationStatus{State: emqx.StateEvictingConns} })
		pass(6 * time.Second)
		require.Nil(t, f.get("a").evacuation)
	})
}

func (f *fakeAPI) StartRebalance(ctx context.Context, node emqx.Node, c emqx.Credentials, asked emqx.Rebalance) error {
	n, err := f.node(ctx, node, c)
	if err != nil {
		return err
	}
	time.Sleep(f.get(n.name).slow)
	f.mu.Lock()
	defer f.mu.Unlock()
	n.starts++
	if n.refuses == nil {
		f.nodes[asked.Nodes[0]].donation = &emqx.Donation{Coordinator: node.Name, State: emqx.RebalanceEvictingConns}
	}
	return n.refuses
}

func (f *fakeAPI) StopRebalance(ctx context.Context, node emqx.Node, c emqx.Credentials) error {
	n, err := f.node(ctx, node, c)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		n.stops++
		for _, other := range f.nodes {
			other.donation = nil
		}
	}
	return err
}
