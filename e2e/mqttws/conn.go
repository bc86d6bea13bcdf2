// Package mqttws carries MQTT over WebSocket, for both ends.
package mqttws

import (
	"errors"
	"io"
	"net"

	"github.com/gorilla/websocket"
)

// Conn is a WebSocket connection as a stream of bytes; message bounds mean nothing to MQTT.
type Conn struct {
	net.Conn
	ws     *websocket.Conn
	reader io.Reader
}

// New returns ws as a stream of bytes.
func New(ws *websocket.Conn) *Conn { return &Conn{Conn: ws.NetConn(), ws: ws} }

// Read gives bytes of binary messages; one of another kind is an error.
func (c *Conn) Read(p []byte) (int, error) {
	for {
		if c.reader == nil {
			kind, r, err := c.ws.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("websocket message is not binary")
			}
			c.reader = r
		}
		n, err := c.reader.Read(p)
		if errors.Is(err, io.EOF) {
			c.reader, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write sends p as one binary message.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
