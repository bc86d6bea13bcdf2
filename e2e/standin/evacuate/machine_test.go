package evacuate

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeWorld is a node whose clients leave when asked and whose sessions go when moved. Of the connected clients the
// first ones have sessions that end with the connection.
type fakeWorld struct {
	now        time.Time
	live       int
	sessions   int
	transient  int // of the live clients, those without a lasting session
	recipients []string
	refusing   bool
	moves      time.Duration // how long moving one session takes
	stuck      bool          // connections that do not go
}

func (w *fakeWorld) Live() int       { return w.live }
func (w *fakeWorld) Sessions() int   { return w.sessions }
func (w *fakeWorld) Admit()          { w.refusing = false }
func (w *fakeWorld) Refuse(string)   { w.refusing = true }
func (w *fakeWorld) time() time.Time { return w.now }

func (w *fakeWorld) EvictConnections(n int, _ string) {
	if w.stuck {
		return
	}
	n = min(n, w.live)
	w.live -= n
	gone := min(n, w.transient)
	w.transient -= gone
	w.sessions -= gone
}

func (w *fakeWorld) Recipients([]string) []string { return w.recipients }

func (w *fakeWorld) MoveSessions(n int, _ []string) {
	n = min(n, w.sessions)
	w.sessions -= n
	w.now = w.now.Add(time.Duration(n) * w.moves)
}

// seen is what status tells at a moment.
type seen struct {
	at    time.Duration
	state State
	stats Stats
}

// play runs a machine in virtual time and lists every change of what status tells.
func play(m *Machine, w *fakeWorld, begun time.Time, limit time.Duration) []seen {
	var list []seen
	note := func() {
		s := seen{w.now.Sub(begun).Round(time.Millisecond), m.State(), m.Stats()}
		if len(list) == 0 || list[len(list)-1].state != s.state || list[len(list)-1].stats != s.stats {
			list = append(list, s)
		}
	}
	note()
	for !m.Due().IsZero() && m.Due().Sub(begun) <= limit {
		if m.Due().After(w.now) {
			w.now = m.Due()
		}
		m.Step(w.time, w)
		note()
	}
	return list
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

func TestTimelines(t *testing.T) {
	stats := func(sess, connected int) Stats {
		return Stats{CurrentSessions: sess, InitialSessions: 16, CurrentConnected: connected, InitialConnected: 12}
	}
	for _, c := range []struct {
		reason  string
		world   fakeWorld
		options Options
		want    []seen
	}{
		{
			reason:  "as recorded: sixteen sessions, twelve connected, six of them transient",
			world:   fakeWorld{live: 12, sessions: 16, transient: 6, recipients: []string{"b", "c"}},
			options: Options{WaitHealthCheck: seconds(3), WaitTakeover: seconds(4), ConnRate: 2, SessRate: 5},
			want: []seen{
				{0, WaitingHealthCheck, stats(16, 12)},
				{seconds(3), EvictingConns, stats(16, 12)},
				{seconds(4), EvictingConns, stats(16, 10)},
				{seconds(5), EvictingConns, stats(16, 8)},
				{seconds(6), EvictingConns, stats(16, 6)},
				{seconds(7), EvictingConns, stats(16, 4)},
				{seconds(8), EvictingConns, stats(16, 2)},
				{seconds(9), WaitingTakeover, stats(16, 0)},
				{seconds(13), EvictingSessions, stats(10, 0)},
				{seconds(14), EvictingSessions, stats(5, 0)},
				{seconds(15), Prohibiting, stats(0, 0)},
			},
		},
		{
			reason:  "nobody takes sessions: figures stay as they were, and it looks again every 30 s, for ever",
			world:   fakeWorld{live: 12, sessions: 16, transient: 6},
			options: Options{ConnRate: 12, SessRate: 1},
			want: []seen{
				{0, WaitingHealthCheck, stats(16, 12)},
				{0, EvictingConns, stats(16, 12)},
				{seconds(1), EvictingSessions, stats(16, 0)},
			},
		},
		{
			reason:  "a connection that never closes keeps it for ever",
			world:   fakeWorld{live: 12, sessions: 16, stuck: true, recipients: []string{"b"}},
			options: Options{ConnRate: 12, SessRate: 1},
			want: []seen{
				{0, WaitingHealthCheck, stats(16, 12)},
				{0, EvictingConns, stats(16, 12)},
			},
		},
		{
			reason:  "moving takes its time, and the pause comes after it",
			world:   fakeWorld{live: 12, sessions: 16, transient: 12, recipients: []string{"b"}, moves: 200 * time.Millisecond},
			options: Options{ConnRate: 500, SessRate: 3},
			want: []seen{
				{0, WaitingHealthCheck, stats(16, 12)},
				{0, EvictingConns, stats(16, 12)},
				{seconds(1.6), EvictingSessions, stats(4, 0)},
				{seconds(2.8), EvictingSessions, stats(1, 0)},
				{seconds(3.8), Prohibiting, stats(0, 0)},
			},
		},
	} {
		t.Run(c.reason, func(t *testing.T) {
			begun := time.Unix(1000, 0)
			w := c.world
			w.now = begun
			var m Machine
			require.NoError(t, m.Start(w.now, c.options, &w))
			require.False(t, w.refusing, "clients are accepted during the health check wait")
			got := play(&m, &w, begun, time.Hour)
			require.Equal(t, c.want, got)
			require.True(t, w.refusing)
		})
	}
}

func TestNoRecipientsThenSome(t *testing.T) {
	begun := time.Unix(1000, 0)
	w := &fakeWorld{now: begun, sessions: 4}
	var m Machine
	require.NoError(t, m.Start(w.now, Options{ConnRate: 1, SessRate: 4}, w))
	m.Step(w.time, w)
	require.Equal(t, EvictingSessions, m.State())
	require.Equal(t, begun.Add(30*time.Second), m.Due())
	w.recipients = []string{"b"}
	w.now = begun.Add(29 * time.Second)
	m.Step(w.time, w)
	require.Equal(t, 4, w.sessions, "it looks again only when the time has come")
	w.now = begun.Add(30 * time.Second)
	m.Step(w.time, w)
	require.Equal(t, 0, w.sessions)
	require.Equal(t, begun.Add(31*time.Second), m.Due(), "ticks of a second again")
}

func TestStopFromEveryState(t *testing.T) {
	for _, want := range []State{WaitingHealthCheck, EvictingConns, WaitingTakeover, EvictingSessions, Prohibiting} {
		t.Run(string(want), func(t *testing.T) {
			w := &fakeWorld{now: time.Unix(1000, 0), live: 4, sessions: 4, recipients: []string{"b"}}
			var m Machine
			require.ErrorIs(t, m.Stop(), ErrNotStarted)
			o := Options{WaitHealthCheck: time.Second, WaitTakeover: time.Second, ConnRate: 1, SessRate: 1}
			require.NoError(t, m.Start(w.now, o, w))
			for m.State() != want {
				w.now = m.Due()
				m.Step(w.time, w)
			}
			require.ErrorIs(t, m.Start(w.now, o, w), ErrAlreadyStarted)
			require.NoError(t, m.Stop())
			require.Equal(t, Disabled, m.State())
			require.True(t, m.Due().IsZero())
			require.ErrorIs(t, m.Stop(), ErrNotStarted)
		})
	}
}

func TestRestoreRefusesAtOnce(t *testing.T) {
	w := &fakeWorld{now: time.Unix(1000, 0)}
	var m Machine
	m.Restore(w.now, Options{ConnRate: 10, SessRate: 5, WaitTakeover: time.Second}, w)
	require.True(t, w.refusing)
	require.Equal(t, EvictingConns, m.State())
	list := play(&m, w, w.now, time.Minute)
	require.Equal(t, Prohibiting, list[len(list)-1].state)
}

func TestPersistence(t *testing.T) {
	o := Options{
		ConnRate: 10, SessRate: 20, WaitTakeover: 30 * time.Second, WaitHealthCheck: time.Minute, MigrateTo: []string{"b"},
		ServerReference: "s1 s2",
	}
	restored := Defaults()
	restored.ConnRate, restored.SessRate, restored.WaitTakeover, restored.ServerReference = 10, 20, 30*time.Second, "s1 s2"
	withoutReference := restored
	withoutReference.ServerReference = ""
	noReference := o
	noReference.ServerReference = ""
	for _, c := range []struct {
		reason string
		write  func(dir string) error
		want   Options
		found  bool
	}{
		{"recipients and health check wait are not kept", func(dir string) error { return save(dir, o) }, restored, true},
		{"without a server reference", func(dir string) error { return save(dir, noReference) }, withoutReference, true},
		{"an empty object stands for the defaults", func(dir string) error { return os.WriteFile(evacuationFile(dir), []byte("{}"), 0o600) }, Defaults(), true},
		{"so does what is no JSON", func(dir string) error { return os.WriteFile(evacuationFile(dir), []byte("{bad"), 0o600) }, Defaults(), true},
		{"and nonsense in it", func(dir string) error {
			return os.WriteFile(evacuationFile(dir), []byte(`{"conn_evict_rate":-1,"sess_evict_rate":0,"wait_takeover":-5}`), 0o600)
		}, Defaults(), true},
		{"no file is no evacuation", func(string) error { return nil }, Defaults(), false},
		{"nor is one that was cleared", func(dir string) error {
			if err := save(dir, o); err != nil {
				return err
			}
			return clearSaved(dir)
		}, Defaults(), false},
	} {
		t.Run(c.reason, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, c.write(dir))
			got, found, err := load(dir)
			require.NoError(t, err)
			require.Equal(t, c.found, found)
			require.Equal(t, c.want, got)
		})
	}
	require.NoError(t, clearSaved(filepath.Join(t.TempDir(), "nothing")))
}

// door notes what the agent did with it.
type door struct{ open bool }

func (d *door) Open()       { d.open = true }
func (d *door) Shut(string) { d.open = false }

func TestAgentHasOneOwner(t *testing.T) {
	d := &door{}
	a := NewAgent(d)
	require.False(t, a.Enabled())
	require.NoError(t, a.Enable("evacuation"))
	require.NoError(t, a.Enable("evacuation"), "its owner may change it")
	require.ErrorIs(t, a.Enable("rebalance"), ErrBusy)
	a.Disable("rebalance")
	require.True(t, a.Enabled(), "only its owner gives it back")
	require.False(t, d.open)
	a.Disable("evacuation")
	require.False(t, a.Enabled())
	require.True(t, d.open)
}

func TestWithinThresholds(t *testing.T) {
	for _, c := range []struct {
		reason           string
		donor, recipient float64
		abs              int
		rel              float64
		want             bool
	}{
		{"within the absolute one", 3, 2, 1, 1.1, true},
		{"within the relative one", 110, 100, 1, 1.1, true},
		{"within neither", 4, 2, 1, 1.1, false},
		{"fewer than the recipients", 1, 2, 1, 1.1, true},
	} {
		require.Equal(t, c.want, within(c.donor, c.recipient, c.abs, c.rel), c.reason)
	}
}

func TestFloatsHaveAPoint(t *testing.T) {
	for f, want := range map[Float]string{2: "2.0", 0: "0.0", 120.5: "120.5"} {
		got, err := f.MarshalJSON()
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}
