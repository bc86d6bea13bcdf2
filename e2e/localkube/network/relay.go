package network

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// relayBufferBytes is how much is moved at once in one direction.
const relayBufferBytes = 32 << 10

// relay moves bytes between pairs of connections. It borrows a buffer only while there is something to move, so that
// thousands of idle connections cost two descriptors and two goroutines each: io.Copy between TCP connections would
// hold a kernel pipe, two descriptors more, for each direction all the time.
type relay struct{ buffers sync.Pool }

func newRelay() *relay {
	return &relay{buffers: sync.Pool{New: func() any {
		buffer := make([]byte, relayBufferBytes)
		return &buffer
	}}}
}

// join forwards between the two until both have closed, one fails or the context ends, and closes both.
func (r *relay) join(ctx context.Context, a, b *net.TCPConn) {
	stop := context.AfterFunc(ctx, func() { reset(a); reset(b) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { r.oneWay(a, b) })
	r.oneWay(b, a)
	wg.Wait()
	_ = a.Close()
	_ = b.Close()
}

// oneWay forwards one direction. It passes an end on as an end, and a failure as a reset of both connections.
func (r *relay) oneWay(to, from *net.TCPConn) {
	err := r.copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ENOTCONN) {
		reset(to)
		reset(from)
	}
}

// copy returns nil when from has ended.
func (r *relay) copy(to, from *net.TCPConn) error {
	raw, err := from.SyscallConn()
	if err != nil {
		return err
	}
	for {
		chunk, err := r.read(raw)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = to.Write((*chunk.buffer)[:chunk.length])
		r.buffers.Put(chunk.buffer)
		if err != nil {
			return err
		}
	}
}

type chunk struct {
	buffer *[]byte
	length int
}

// read waits until there is something to read and only then takes a buffer.
func (r *relay) read(raw syscall.RawConn) (chunk, error) {
	var c chunk
	var readErr error
	err := raw.Read(func(fd uintptr) bool {
		buffer := r.buffers.Get().(*[]byte)
		for {
			c.length, readErr = syscall.Read(int(fd), *buffer)
			if !errors.Is(readErr, syscall.EINTR) {
				break
			}
		}
		if readErr == nil && c.length > 0 {
			c.buffer = buffer
			return true
		}
		r.buffers.Put(buffer)
		return !errors.Is(readErr, syscall.EAGAIN)
	})
	switch {
	case err != nil:
		return chunk{}, err
	case readErr != nil:
		return chunk{}, readErr
	case c.length == 0:
		return chunk{}, io.EOF
	}
	return c, nil
}

// reset closes the connection so that the peer sees it was broken and not ended.
func reset(connection *net.TCPConn) {
	_ = connection.SetLinger(0)
	_ = connection.Close()
}
