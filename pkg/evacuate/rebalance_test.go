package evacuate

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

func rebalancing(run bool) Goal {
	goal := goal(true, Serve, Serve)
	goal.Rebalance = RebalanceGoal{ID: "r", Coordinator: "a", Run: run, Rebalance: emqx.Rebalance{Nodes: []string{"b", "a"}}}
	return goal
}

// TestRebalanceIsStartedAgain: one that ended is started again, ever more rarely, until EMQX finds nothing to do.
func TestRebalanceIsStartedAgain(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(rebalancing(true))
		pass(20 * time.Second)
		require.Equal(t, 1, f.get("a").starts)
		require.Equal(t, "a", d.Observation().Nodes["b"].Donation.Coordinator)
		require.False(t, d.Observation().Nodes["b"].Available)
		require.Equal(t, RebalanceObservation{ID: "r"}, d.Observation().Rebalance)

		for starts, wait := range []time.Duration{0, 10 * time.Second, 20 * time.Second} {
			f.change("b", func(n *fakeNode) { n.donation = nil })
			if wait > 0 {
				pass(wait / 2)
				require.Equal(t, starts+1, f.get("a").starts, "not before its time")
			}
			pass(wait/2 + 3*time.Second)
			require.Equal(t, starts+2, f.get("a").starts)
		}
		f.change("b", func(n *fakeNode) { n.donation = nil })
		f.change("a", func(n *fakeNode) { n.refuses = fmt.Errorf("rebalance: %w", emqx.ErrNothingToBalance) })
		pass(time.Minute)
		require.Equal(t, RebalanceObservation{ID: "r", Even: true}, d.Observation().Rebalance)
		starts := f.get("a").starts
		pass(time.Hour)
		require.Equal(t, starts, f.get("a").starts, "it is over")
	})
}

// TestRebalanceRefused: what EMQX never takes is told apart from what it does not take now.
func TestRebalanceRefused(t *testing.T) {
	for _, test := range []struct {
		refusal error
		invalid bool
	}{
		{fmt.Errorf("rebalance: %w", emqx.ErrInvalid), true},
		{fmt.Errorf("rebalance: %w", emqx.ErrRecipients), false},
		{errors.New("rebalance: HTTP 400: something else"), false},
	} {
		drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
			f.change("a", func(n *fakeNode) { n.refuses = test.refusal })
			d.Pursue(rebalancing(true))
			pass(time.Minute)
			observed := d.Observation().Rebalance
			require.Equal(t, test.invalid, observed.Invalid != "", observed)
			require.Equal(t, test.invalid, observed.Failure == "", observed)
			require.Equal(t, test.invalid, f.get("a").starts == 1, "what may mend is tried again")
		})
	}
}

// TestRebalanceIsStopped: also one of before, and not called so before a start that is under way has ended.
func TestRebalanceIsStopped(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.change("b", func(n *fakeNode) { n.donation = &emqx.Donation{Coordinator: "a"} })
		d.Pursue(rebalancing(false))
		pass(3 * time.Second)
		require.True(t, d.Observation().Rebalance.Stopped)
		require.Equal(t, 1, f.get("a").stops, "once is enough")
		require.Nil(t, f.get("b").donation)

		f.change("a", func(n *fakeNode) { n.slow = 5 * time.Second })
		d.Pursue(rebalancing(true))
		require.False(t, d.Observation().Rebalance.Stopped, "it may start at any moment")
		pass(2 * time.Second)
		d.Pursue(rebalancing(false))
		pass(2 * time.Second)
		require.False(t, d.Observation().Rebalance.Stopped)
		pass(5 * time.Second)
		require.Equal(t, 1, f.get("a").starts)
		require.True(t, d.Observation().Rebalance.Stopped)
		require.Nil(t, f.get("b").donation)
	})
}

// TestRebalanceWhoseAnswerWasLost: it may start later, and is stopped until it cannot.
func TestRebalanceWhoseAnswerWasLost(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.change("a", func(n *fakeNode) { n.refuses = fmt.Errorf("rebalance: %w", emqx.ErrSilent) })
		d.Pursue(rebalancing(true))
		pass(3 * time.Second)
		require.Equal(t, emqx.ErrSilent.Error(), d.Observation().Rebalance.Failure)
		d.Pursue(rebalancing(false))
		pass(50 * time.Second)
		require.False(t, d.Observation().Rebalance.Stopped)
		pass(15 * time.Second)
		require.True(t, d.Observation().Rebalance.Stopped)
	})
}

// TestRebalanceOfASilentNode: nothing is ordered of it, and a stop is tried again and again.
func TestRebalanceOfASilentNode(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.change("a", func(n *fakeNode) { n.frozen = true })
		d.Pursue(rebalancing(true))
		pass(time.Minute)
		require.Zero(t, f.get("a").starts)
		d.Pursue(rebalancing(false))
		pass(time.Minute)
		require.False(t, d.Observation().Rebalance.Stopped)
		require.NotEmpty(t, d.Observation().Rebalance.Failure)
		f.change("a", func(n *fakeNode) { n.frozen = false })
		pass(10 * time.Second)
		require.True(t, d.Observation().Rebalance.Stopped)
	})
}

// TestADonorThatBeganBetweenTwoQuestions is not taken for a node that refuses clients for no reason.
func TestADonorThatBeganBetweenTwoQuestions(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		d.Pursue(goal(true, Serve, Serve))
		for range 20 {
			f.change("b", func(n *fakeNode) { n.donation = &emqx.Donation{Coordinator: "a"} })
			pass(time.Second)
			b := d.Observation().Nodes["b"]
			require.True(t, b.Available || b.Donation != nil)
			f.change("b", func(n *fakeNode) { n.donation = nil })
			pass(time.Second)
			b = d.Observation().Nodes["b"]
			require.True(t, b.Available || b.Donation != nil)
		}
	})
}
