package link

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// notes is a Handler that writes down what it is told.
type notes struct {
	mu     sync.Mutex
	up     map[string]int
	casts  []string
	admit  bool
	answer func(topic string, body []byte) ([]byte, error)
}

func newNotes() *notes { return &notes{up: map[string]int{}, admit: true} }

func (n *notes) Admit(string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.admit
}

func (n *notes) setAdmit(admit bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.admit = admit
}

func (n *notes) Up(node string, _ int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up[node]++
}

func (n *notes) Down(node string, _ int64, _ error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up[node]--
}

func (n *notes) Cast(_, topic string, body []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.casts = append(n.casts, topic+" "+string(body))
}

func (n *notes) Call(_ context.Context, _ string, _ bool, topic string, body []byte) ([]byte, error) {
	if n.answer != nil {
		return n.answer(topic, body)
	}
	return body, nil
}

func (n *notes) isUp(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up[node] == 1
}

type book struct {
	mu    sync.Mutex
	where map[string]string
}

func (b *book) resolve(_ context.Context, node string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if address, ok := b.where[node]; ok {
		return address, nil
	}
	return "", errors.New("unknown node")
}

func (b *book) node(t *testing.T, name, cookie string, modify func(*Config)) (*Mesh, *notes) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b.mu.Lock()
	if b.where == nil {
		b.where = map[string]string{}
	}
	b.where[name] = ln.Addr().String()
	b.mu.Unlock()
	n := newNotes()
	cfg := Config{
		Self: name, Incarnation: time.Now().UnixNano(), Cookie: cookie, Listener: ln, Handler: n, Resolve: b.resolve,
		Heartbeat: 20 * time.Millisecond, Redial: 10 * time.Millisecond,
	}
	if modify != nil {
		modify(&cfg)
	}
	m := New(cfg)
	m.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			require.ErrorIs(t, err, ErrClosed)
		}
	})
	return m, n
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 20*time.Second, 2*time.Millisecond, what)
}

// Nodes that dial each other at the same moment end up with one connection, whoever comes first.
func TestSimultaneousDials(t *testing.T) {
	for range 20 {
		var b book
		names := []string{"n1", "n2", "n3"}
		meshes := map[string]*Mesh{}
		told := map[string]*notes{}
		for _, name := range names {
			meshes[name], told[name] = b.node(t, name, "c", nil)
		}
		for _, name := range names {
			go meshes[name].Follow(names)
		}
		for _, name := range names {
			for _, other := range names {
				if other != name {
					eventually(t, name+" sees "+other, func() bool { return told[name].isUp(other) })
				}
			}
		}
		for _, name := range names {
			require.Len(t, meshes[name].Peers(), 2)
		}
	}
}

// A reply comes after everything that was cast before it: takeover depends on it.
func TestReplyComesAfterCasts(t *testing.T) {
	var b book
	m1, told1 := b.node(t, "n1", "c", nil)
	m2, told2 := b.node(t, "n2", "c", nil)
	told2.answer = func(_ string, body []byte) ([]byte, error) {
		for i := range 100 {
			if err := m2.Cast("n1", "before", []byte(strconv.Itoa(i)), false); err != nil {
				return nil, err
			}
		}
		return body, nil
	}
	m1.Follow([]string{"n2"})
	m2.Follow([]string{"n1"})
	eventually(t, "connected", func() bool { return told1.isUp("n2") && told2.isUp("n1") })
	for range 20 {
		told1.mu.Lock()
		told1.casts = nil
		told1.mu.Unlock()
		body, err := m1.Call(context.Background(), "n2", "ask", []byte("x"))
		require.NoError(t, err)
		require.Equal(t, "x", string(body))
		told1.mu.Lock()
		require.Len(t, told1.casts, 100)
		require.Equal(t, "before 99", told1.casts[99])
		told1.mu.Unlock()
	}
}

func TestWrongCookieAndStrangers(t *testing.T) {
	var b book
	m1, told1 := b.node(t, "n1", "c", nil)
	m2, _ := b.node(t, "n2", "another", nil)
	m3, told3 := b.node(t, "n3", "c", nil)
	_, err := m2.Ask(context.Background(), "n1", "ask", nil)
	require.ErrorIs(t, err, ErrRefused)
	told1.setAdmit(false)
	m3.Follow([]string{"n1"})
	body, err := m3.Ask(context.Background(), "n1", "ask", []byte("who"))
	require.NoError(t, err, "a stranger with the cookie may ask")
	require.Equal(t, "who", string(body))
	require.False(t, told3.isUp("n1"), "but is not connected")
	told1.setAdmit(true)
	eventually(t, "a member is", func() bool { return told3.isUp("n1") })
	require.Equal(t, []string{"n3"}, m1.Peers())
}

func TestErrorsOfCalls(t *testing.T) {
	var b book
	m1, told1 := b.node(t, "n1", "c", nil)
	_, told2 := b.node(t, "n2", "c", nil)
	block := make(chan struct{})
	told2.answer = func(topic string, _ []byte) ([]byte, error) {
		if topic == "hang" {
			<-block
		}
		return nil, errors.New("no such thing")
	}
	defer close(block)
	_, err := m1.Call(context.Background(), "n2", "x", nil)
	require.ErrorIs(t, err, ErrPeerDown)
	m1.Follow([]string{"n2"})
	eventually(t, "connected", func() bool { return told1.isUp("n2") })
	_, err = m1.Call(context.Background(), "n2", "x", nil)
	var remote *RemoteError
	require.ErrorAs(t, err, &remote)
	require.Equal(t, "no such thing", remote.Text)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = m1.Call(ctx, "n2", "hang", nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	done := make(chan error, 1)
	go func() {
		_, err := m1.Call(context.Background(), "n2", "hang", nil)
		done <- err
	}()
	m1.Follow(nil)
	require.ErrorIs(t, <-done, ErrPeerDown, "a call ends with its connection")
}

// frozen accepts a connection as a node, and then reads and writes nothing.
func frozen(t *testing.T, b *book, name, cookie string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b.mu.Lock()
	b.where[name] = ln.Addr().String()
	b.mu.Unlock()
	pretender := New(Config{Self: name, Incarnation: 1, Cookie: cookie, Listener: ln, Handler: newNotes(), Resolve: b.resolve})
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			w := newWire(conn)
			if _, err := pretender.answerHandshake(w, time.Now().Add(time.Second)); err == nil {
				_ = w.sendJSON(verdict{Verdict: verdictOK})
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
	}()
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// A frozen node stays connected; what may be dropped is dropped at the bound of its queue, nothing blocks, and in the
// end it is given up, and kept out for a while when it is heard again.
func TestFrozenPeer(t *testing.T) {
	var b book
	m1, told1 := b.node(t, "n1", "c", func(c *Config) {
		c.QueueBytes, c.PeerTimeout, c.Heal = 1<<20, 400*time.Millisecond, 200*time.Millisecond
	})
	frozen(t, &b, "n2", "c")
	m1.Follow([]string{"n2"})
	eventually(t, "connected", func() bool { return told1.isUp("n2") })
	begun := time.Now()
	var full error
	for range 1000 {
		if full = m1.Cast("n2", "big", make([]byte, 64<<10), true); full != nil {
			break
		}
	}
	require.ErrorIs(t, full, ErrQueueFull)
	require.NoError(t, m1.Cast("n2", "small", nil, false), "what must not be dropped still goes in")
	eventually(t, "not responsive", func() bool { return !m1.Responsive("n2") })
	require.True(t, told1.isUp("n2"), "but connected")
	eventually(t, "given up", func() bool { return !told1.isUp("n2") })
	require.GreaterOrEqual(t, time.Since(begun), 300*time.Millisecond)
	given := time.Now()
	eventually(t, "taken back", func() bool { return told1.isUp("n2") })
	require.GreaterOrEqual(t, time.Since(given), 150*time.Millisecond, "not before it has healed")
}

// What was queued is sent before a mesh closes.
func TestCloseSendsTheQueue(t *testing.T) {
	var b book
	m1, told1 := b.node(t, "n1", "c", nil)
	_, told2 := b.node(t, "n2", "c", nil)
	m1.Follow([]string{"n2"})
	eventually(t, "connected", func() bool { return told1.isUp("n2") })
	for i := range 2000 {
		require.NoError(t, m1.Cast("n2", "last", []byte(strconv.Itoa(i)), true))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, m1.Close(ctx))
	eventually(t, "everything arrives", func() bool {
		told2.mu.Lock()
		defer told2.mu.Unlock()
		return len(told2.casts) == 2000 && told2.casts[1999] == "last 1999"
	})
	require.ErrorIs(t, m1.Close(ctx), ErrClosed)
}

// Garbage on the port harms nobody.
func TestGarbage(t *testing.T) {
	var b book
	m1, told1 := b.node(t, "n1", "c", nil)
	_, told2 := b.node(t, "n2", "c", nil)
	for _, junk := range []string{"", "GET / HTTP/1.0\r\n\r\n", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff"} {
		conn, err := net.Dial("tcp", b.where["n1"])
		require.NoError(t, err)
		_, err = conn.Write([]byte(junk))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	m1.Follow([]string{"n2"})
	eventually(t, "it goes on", func() bool { return told1.isUp("n2") && told2.isUp("n1") })
}
