package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// dnsPlainBytes is the longest answer over UDP to a client that does not offer to take more.
	dnsPlainBytes = 512
	// dnsMaxUDPBytes is the longest answer over UDP at all.
	dnsMaxUDPBytes = 4096
	// dnsTTLSeconds is short: names follow pods at once.
	dnsTTLSeconds = 1
	// dnsIdleTimeout ends an idle TCP connection.
	dnsIdleTimeout = 10 * time.Second
)

// DNS serves the cluster domain over UDP and TCP.
type DNS struct {
	resolver *Resolver
	log      *slog.Logger
	packets  net.PacketConn
	listener net.Listener
}

// ListenDNS opens the address, host:port, for UDP and TCP; Run serves it.
func ListenDNS(ctx context.Context, address string, resolver *Resolver, log *slog.Logger) (*DNS, error) {
	var config net.ListenConfig
	packets, err := config.ListenPacket(ctx, "udp4", address)
	if err != nil {
		return nil, fmt.Errorf("listen for DNS: %w", err)
	}
	listener, err := config.Listen(ctx, "tcp4", address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for DNS: %w", err), packets.Close())
	}
	return &DNS{resolver: resolver, log: log, packets: packets, listener: listener}, nil
}

// Run serves until the context ends.
func (d *DNS) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		_ = d.packets.Close()
		_ = d.listener.Close()
	})
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { d.serveTCP(ctx) })
	d.serveUDP()
	wg.Wait()
}

func (d *DNS) serveUDP() {
	buffer := make([]byte, dnsMaxUDPBytes)
	for {
		n, client, err := d.packets.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			d.log.Warn("cannot read a DNS query", "error", err)
			continue
		}
		answer, err := d.answer(buffer[:n], true)
		if err != nil {
			d.log.Debug("dropped a DNS query", "client", client.String(), "error", err)
			continue
		}
		if _, err := d.packets.WriteTo(answer, client); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Debug("cannot send a DNS answer", "client", client.String(), "error", err)
		}
	}
}

func (d *DNS) serveTCP(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		connection, err := d.listener.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil {
			d.log.Warn("cannot accept a DNS connection", "error", err)
			continue
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
			defer stop()
			defer func() { _ = connection.Close() }()
			if err := d.serveConnection(connection); !errors.Is(err, io.EOF) {
				d.log.Debug("a DNS connection ended", "error", err)
			}
		})
	}
}

// serveConnection answers until the connection ends, and says how it did.
func (d *DNS) serveConnection(connection net.Conn) error {
	for {
		if err := connection.SetDeadline(time.Now().Add(dnsIdleTimeout)); err != nil {
			return err
		}
		var length [2]byte
		if _, err := io.ReadFull(connection, length[:]); err != nil {
			return err
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(connection, query); err != nil {
			return err
		}
		answer, err := d.answer(query, false)
		if err != nil {
			return err
		}
		framed := binary.BigEndian.AppendUint16(nil, uint16(len(answer))) //nolint:gosec // answer cuts it
		if _, err := connection.Write(append(framed, answer...)); err != nil {
			return err
		}
	}
}

// answer builds the reply to a query. Over UDP it is cut, and marked so, when it is longer than the client takes.
func (d *DNS) answer(raw []byte, udp bool) ([]byte, error) {
	var query dnsmessage.Message
	if err := query.Unpack(raw); err != nil {
		return nil, fmt.Errorf("unpack the query: %w", err)
	}
	if query.Response || len(query.Questions) != 1 {
		return nil, errors.New("not a query with one question")
	}
	question := query.Questions[0]
	result := Answer{RCode: dnsmessage.RCodeRefused}
	if query.OpCode == 0 && question.Class == dnsmessage.ClassINET {
		result = d.resolver.Resolve(question)
	}
	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: query.ID, Response: true, Authoritative: true, RecursionDesired: query.RecursionDesired, RCode: result.RCode,
		},
		Questions:   query.Questions,
		Answers:     result.Answers,
		Additionals: result.Additionals,
	}
	limit := 1<<16 - 1
	if udp {
		limit = udpLimit(query)
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack the answer: %w", err)
	}
	if len(packed) <= limit {
		return packed, nil
	}
	// First without what is optional, then without any records.
	reply.Additionals = nil
	if packed, err = reply.Pack(); err != nil || len(packed) <= limit {
		return packed, err
	}
	reply.Truncated, reply.Answers = true, nil
	return reply.Pack()
}

// udpLimit is the length the client offers to take.
func udpLimit(query dnsmessage.Message) int {
	for i := range query.Additionals {
		if query.Additionals[i].Header.Type == dnsmessage.TypeOPT {
			return min(max(int(query.Additionals[i].Header.Class), dnsPlainBytes), dnsMaxUDPBytes)
		}
	}
	return dnsPlainBytes
}
