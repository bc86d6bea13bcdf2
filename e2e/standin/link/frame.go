package link

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// The kinds of frame two nodes exchange after the handshake.
const (
	frameCast byte = iota + 1
	frameCall
	frameReply
	frameFailure
	framePing
	frameBye
)

const (
	frameHeaderBytes = 4 + 1 + 8 + 1
	maxFrameBytes    = 64 << 20
)

var errFrameTooLarge = errors.New("frame is larger than the limit")

// frame is one message on the wire: length, type, call id, topic, body.
type frame struct {
	kind  byte
	id    uint64
	topic string
	body  []byte
}

func (f frame) size() int { return frameHeaderBytes + len(f.topic) + len(f.body) }

func writeFrame(w *bufio.Writer, f frame) error {
	if f.size() > maxFrameBytes || len(f.topic) > math.MaxUint8 {
		return fmt.Errorf("write a frame %s of %d bytes: %w", f.topic, f.size(), errFrameTooLarge)
	}
	var head [frameHeaderBytes]byte
	binary.BigEndian.PutUint32(head[0:4], uint32(f.size()-4)) //nolint:gosec // checked above
	head[4] = f.kind
	binary.BigEndian.PutUint64(head[5:13], f.id)
	head[13] = byte(len(f.topic)) //nolint:gosec // checked above
	if _, err := w.Write(head[:]); err != nil {
		return fmt.Errorf("write frame header: %w", err)
	}
	if _, err := w.WriteString(f.topic); err != nil {
		return fmt.Errorf("write frame topic: %w", err)
	}
	if _, err := w.Write(f.body); err != nil {
		return fmt.Errorf("write frame body: %w", err)
	}
	return nil
}

func readFrame(r *bufio.Reader) (frame, error) {
	var head [frameHeaderBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, fmt.Errorf("read frame header: %w", err)
	}
	length := int(binary.BigEndian.Uint32(head[0:4]))
	if length > maxFrameBytes {
		return frame{}, fmt.Errorf("read a frame of %d bytes: %w", length, errFrameTooLarge)
	}
	rest := length - (frameHeaderBytes - 4)
	topicLen := int(head[13])
	if rest < topicLen {
		return frame{}, fmt.Errorf("read a frame of %d bytes with a topic of %d: %w", length, topicLen, io.ErrUnexpectedEOF)
	}
	buf := make([]byte, rest)
	if _, err := io.ReadFull(r, buf); err != nil {
		return frame{}, fmt.Errorf("read frame body: %w", err)
	}
	return frame{
		kind:  head[4],
		id:    binary.BigEndian.Uint64(head[5:13]),
		topic: string(buf[:topicLen]),
		body:  buf[topicLen:],
	}, nil
}
