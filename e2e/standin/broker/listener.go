package broker

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/emqx-bg/emqx-bg-operator/e2e/mqttws"
)

// listener accepts clients on one address and knows every connection it has accepted, so that none outlives it.
// The library's own listeners forget connections that have not sent CONNECT.
type listener struct {
	b    *Broker
	id   string
	ln   net.Listener
	http *http.Server
	wg   sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

func newListener(b *Broker, id string, web bool, ln net.Listener) *listener {
	l := &listener{b: b, id: id, ln: ln, conns: map[net.Conn]struct{}{}}
	if web {
		mux := http.NewServeMux()
		mux.HandleFunc("/mqtt", l.upgrade)
		l.http = &http.Server{Handler: mux, ReadHeaderTimeout: b.cfg.Timeouts.Connect}
	}
	return l
}

func (l *listener) serve() {
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		if l.http != nil {
			if err := l.http.Serve(l.ln); err != nil && !errors.Is(err, http.ErrServerClosed) && !l.isClosed() {
				l.b.log.Error("listener", "id", l.id, "error", err)
			}
			return
		}
		for {
			conn, err := l.ln.Accept()
			if err != nil {
				if !l.isClosed() {
					l.b.log.Error("listener", "id", l.id, "error", err)
				}
				return
			}
			l.wg.Add(1)
			go func() {
				defer l.wg.Done()
				l.establish(conn)
			}()
		}
	}()
}

func (l *listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// establish serves one client until it is gone. The library panics on some malformed packets; that costs the client
// its connection and nobody else anything.
func (l *listener) establish(conn net.Conn) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		_ = conn.Close()
		return
	}
	l.conns[conn] = struct{}{}
	l.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			l.b.log.Error("malformed packet", "listener", l.id, "remote", conn.RemoteAddr(), "panic", r)
		}
		_ = conn.Close()
		l.mu.Lock()
		delete(l.conns, conn)
		l.mu.Unlock()
	}()
	if err := conn.SetDeadline(time.Now().Add(l.b.cfg.Timeouts.Connect)); err != nil {
		return
	}
	if err := l.b.server.EstablishConnection(l.id, conn); err != nil {
		l.b.log.Debug("client", "listener", l.id, "remote", conn.RemoteAddr(), "error", err)
	}
}

func (l *listener) stopAccepting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	_ = l.ln.Close()
}

// close ends the listener and the sessions of those who came by it: in EMQX they live in the processes of its connections,
// also while the client is away.
func (l *listener) close() {
	l.stopAccepting()
	for _, ch := range l.b.all() {
		ch.endWithListener(l.id)
	}
	l.shut()
}

// shut ends the listener and its connections.
func (l *listener) shut() {
	l.stopAccepting()
	l.mu.Lock()
	for conn := range l.conns {
		_ = conn.Close()
	}
	l.mu.Unlock()
	if l.http != nil {
		_ = l.http.Close()
	}
	l.wg.Wait()
}

func (l *listener) upgrade(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{
		Subprotocols: []string{"mqtt", "mqtt-v3", "mqtt-v3.1.1", "mqtt-v5"},
		CheckOrigin:  func(*http.Request) bool { return true },
	}
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	l.wg.Add(1)
	defer l.wg.Done()
	l.establish(mqttws.New(c))
}
