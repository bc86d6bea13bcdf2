package measure

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// good are the figures of an upgrade that kept everything.
func good() Figures {
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f := Figures{
		From: "aaa", To: "bbb", Clients: 3000, ClientsBack: 3000, MessagesAcknowledged: 20000, MaxDisconnects: 1, MaxAway: 360, Limit: 300,
		LowestShare: 0.913, ConnEvictRate: 200, EvacuationsSeen: 30, Table: "NAME      STATUS   AGE\nemqx-ee   Ready    2m\n",
		Patched: begin, Ready: begin.Add(46 * time.Second),
		Floor: Floor{SlowestStartSeconds: 5, InitialDelaySeconds: 10, EvictionSeconds: 15, WaitTakeoverSeconds: 10},
	}
	for i, phase := range []v2beta1.Phase{"Done", "Pending", "Provisioning", "Switching", "Evacuating", "ScalingDown", "Done"} {
		state := string(phase)
		if phase == v2beta1.PhaseDone {
			state = "Ready"
		}
		f.States = append(f.States, StateChange{At: begin.Add(time.Duration(i-1) * 10 * time.Second), State: state, Phase: phase})
	}
	return f
}

func TestLimits(t *testing.T) {
	for _, test := range []struct {
		reason string
		spoil  func(*Figures)
		failed []string
	}{
		{"an upgrade that kept everything", func(*Figures) {}, nil},
		{"a client that did not come back", func(f *Figures) { f.ClientsBack-- }, []string{"clients on revision bbb"}},
		{"a lost message", func(f *Figures) { f.MessagesLost = 1 }, []string{"messages lost"}},
		{"no message at all proves nothing", func(f *Figures) { f.MessagesAcknowledged = 0 }, []string{"messages lost"}},
		{"a repeated message is told, no more", func(f *Figures) { f.MessagesRepeated = 7 }, nil},
		{"a client disconnected twice", func(f *Figures) { f.MaxDisconnects = 2 }, []string{"most disconnects of a client"}},
		{"more than 1.2 times the limit away", func(f *Figures) { f.MaxAway = 361 }, []string{"most clients away at once"}},
		{"a deep dip, at any rate", func(f *Figures) { f.ConnEvictRate, f.LowestShare = 1000, 0.87 }, []string{"lowest share connected"}},
		{"a deep dip where the user allows it", func(f *Figures) { f.Limit, f.LowestShare = 1500, 0.6 }, nil},
		{"on a starved machine speed is shown and not judged", func(f *Figures) {
			f.LongestGapSeconds, f.MaxAway, f.LowestShare, f.Ready = 1, 900, 0.7, f.Patched.Add(time.Hour)
		}, nil},
		{"nor where others took all processors", func(f *Figures) { f.BusyShare, f.Ready = 0.99, f.Patched.Add(48*time.Second) }, nil},
		{"where they did not, it is", func(f *Figures) { f.BusyShare, f.Ready = 0.9, f.Patched.Add(48*time.Second) }, []string{"time from patch to Ready"}},
		{"a lost message is judged there, too", func(f *Figures) { f.LongestGapSeconds, f.MessagesLost = 1, 1 }, []string{"messages lost"}},
		{"a phase that comes again", func(f *Figures) {
			f.States = append(f.States[:5:5], append([]StateChange{{State: "Switching"}}, f.States[5:]...)...)
		}, []string{"STATUS"}},
		{"a phase nobody saw", func(f *Figures) { f.States = append(f.States[:4:4], f.States[5:]...) }, []string{"STATUS"}},
		{"Pending is left at once and may be missed", func(f *Figures) { f.States = append(f.States[:1:1], f.States[2:]...) }, nil},
		{"a stall", func(f *Figures) { f.States[2].State = "Stalled" }, []string{"STATUS"}},
		{"a missing key", func(f *Figures) { f.EvacuationKeysMissing = []string{"state"} }, []string{"keys of nodeEvacuationsStatus"}},
		{"no evacuation was seen", func(f *Figures) { f.EvacuationsSeen = 0 }, []string{"keys of nodeEvacuationsStatus"}},
		{"a stopped member is left", func(f *Figures) { f.Leftovers = []string{"member x (stopped)"} }, []string{"old pods, sets, members and sites left"}},
		{"another table", func(f *Figures) { f.Table = "NAME   AGE\nemqx-ee   2m\n" }, []string{"kubectl get emqx"}},
		{"more than 15 % longer than the floor", func(f *Figures) { f.Ready = f.Patched.Add(46*time.Second + time.Millisecond) }, []string{"time from patch to Ready"}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			f := good()
			test.spoil(&f)
			f.check()
			require.Equal(t, test.failed, f.Failed())
			require.Equal(t, len(test.failed) == 0, f.OK())
		})
	}
}

func TestFiguresWithoutChecksAreNotGood(t *testing.T) {
	require.False(t, (&Figures{}).OK())
}

func TestDifference(t *testing.T) {
	before := map[string]map[string]int{"a": {"node": 10, "cluster": 4}, "b": {"node": 50}}
	after := map[string]map[string]int{"a": {"node": 15, "cluster": 4}, "b": {"node": 2}, "c": {"evacuation_start": 3}}
	require.Equal(t, []RequestCount{{Verb: "node", Count: 7}, {Verb: "evacuation_start", Count: 3}}, difference(before, after),
		"a restarted pod and a new one count from zero")
}

func TestDip(t *testing.T) {
	patched := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds float64, connected int) load.Sample {
		return load.Sample{At: patched.Add(time.Duration(seconds * float64(time.Second))), Connected: connected}
	}
	share, gap := dip([]load.Sample{at(-9, 100), at(-0.5, 1000), at(0.25, 900), at(0.5, 700), at(2, 1000)}, patched, 1000)
	require.InDelta(t, 0.7, share, 1e-9, "what was before the change does not count")
	require.InDelta(t, 1.5, gap, 1e-9)
}

func TestCount(t *testing.T) {
	for number, text := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		require.Equal(t, text, Count(number))
	}
}

func TestRawEvacuations(t *testing.T) {
	keys, err := rawEvacuations([]byte(`{"status":{"nodeEvacuationsStatus":[{"node":"n","session_goal":0,"stats":{"current_sessions":0}}]}}`))
	require.NoError(t, err)
	require.Equal(t, []map[string]bool{{"node": true, "session_goal": true, "stats": true, "stats.current_sessions": true}}, keys)
}
