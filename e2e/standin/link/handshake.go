package link

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// What a connection is for.
const (
	purposePeer = "peer" // the lasting connection between two members
	purposeAsk  = "ask"  // a single question, also from a node that is no member yet
)

// The verdicts of a handshake.
const (
	verdictOK      = "ok"
	verdictDouble  = "double"  // the two nodes are connected already
	verdictRefused = "refused" // wrong cookie, or not a member
)

// ErrRefused is returned when the other node turned the connection down: another cookie, or it does not count this
// node among its members.
var ErrRefused = errors.New("connection refused by the node")

var errDouble = errors.New("already connected")

// hello is what either side says first. Incarnation tells one run of a node from the next.
type hello struct {
	Node        string `json:"node"`
	Incarnation int64  `json:"incarnation"`
	Purpose     string `json:"purpose"`
	Nonce       []byte `json:"nonce"`
	Proof       []byte `json:"proof,omitempty"`
}

type verdict struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
	Proof   []byte `json:"proof,omitempty"`
}

// wire is a connection with its buffers.
type wire struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

func newWire(conn net.Conn) *wire {
	return &wire{conn: conn, r: bufio.NewReaderSize(conn, 32<<10), w: bufio.NewWriterSize(conn, 32<<10)}
}

func (w *wire) sendJSON(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode handshake: %w", err)
	}
	if err := writeFrame(w.w, frame{body: body}); err != nil {
		return err
	}
	return w.w.Flush()
}

func (w *wire) receiveJSON(v any) error {
	f, err := readFrame(w.r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(f.body, v); err != nil {
		return fmt.Errorf("decode handshake: %w", err)
	}
	return nil
}

// prove binds the cookie to the other side's nonce and to who is speaking.
func prove(cookie string, nonce []byte, node string) []byte {
	mac := hmac.New(sha256.New, []byte(cookie))
	mac.Write(nonce)
	mac.Write([]byte(node))
	return mac.Sum(nil)
}

func newNonce() ([]byte, error) {
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("make a nonce: %w", err)
	}
	return nonce, nil
}

// callHandshake is the dialling side: hello, the other's hello with its proof, our proof, the verdict.
func (m *Mesh) callHandshake(w *wire, purpose string, deadline time.Time) (hello, error) {
	if err := w.conn.SetDeadline(deadline); err != nil {
		return hello{}, fmt.Errorf("set handshake deadline: %w", err)
	}
	nonce, err := newNonce()
	if err != nil {
		return hello{}, err
	}
	mine := hello{Node: m.cfg.Self, Incarnation: m.cfg.Incarnation, Purpose: purpose, Nonce: nonce}
	if err := w.sendJSON(mine); err != nil {
		return hello{}, err
	}
	var theirs hello
	if err := w.receiveJSON(&theirs); err != nil {
		return hello{}, err
	}
	if !hmac.Equal(theirs.Proof, prove(m.cfg.Cookie, nonce, theirs.Node)) {
		return theirs, fmt.Errorf("node %s has another cookie: %w", theirs.Node, ErrRefused)
	}
	if err := w.sendJSON(verdict{Verdict: verdictOK, Proof: prove(m.cfg.Cookie, theirs.Nonce, m.cfg.Self)}); err != nil {
		return theirs, err
	}
	var v verdict
	if err := w.receiveJSON(&v); err != nil {
		return theirs, err
	}
	switch v.Verdict {
	case verdictOK:
		return theirs, w.conn.SetDeadline(time.Time{})
	case verdictDouble:
		return theirs, errDouble
	default:
		return theirs, fmt.Errorf("%s: %w", v.Reason, ErrRefused)
	}
}

// answerHandshake is the accepting side up to the verdict, which the caller gives.
func (m *Mesh) answerHandshake(w *wire, deadline time.Time) (hello, error) {
	if err := w.conn.SetDeadline(deadline); err != nil {
		return hello{}, fmt.Errorf("set handshake deadline: %w", err)
	}
	var theirs hello
	if err := w.receiveJSON(&theirs); err != nil {
		return hello{}, err
	}
	nonce, err := newNonce()
	if err != nil {
		return hello{}, err
	}
	mine := hello{
		Node: m.cfg.Self, Incarnation: m.cfg.Incarnation, Nonce: nonce,
		Proof: prove(m.cfg.Cookie, theirs.Nonce, m.cfg.Self),
	}
	if err := w.sendJSON(mine); err != nil {
		return theirs, err
	}
	var v verdict
	if err := w.receiveJSON(&v); err != nil {
		return theirs, err
	}
	if !hmac.Equal(v.Proof, prove(m.cfg.Cookie, nonce, theirs.Node)) {
		reason := "connection attempt from node " + theirs.Node + " rejected: invalid cookie"
		if err := w.sendJSON(verdict{Verdict: verdictRefused, Reason: reason}); err != nil {
			return theirs, err
		}
		return theirs, fmt.Errorf("%s: %w", reason, ErrRefused)
	}
	return theirs, nil
}
