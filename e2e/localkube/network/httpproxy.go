package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"sync"
	"time"
)

// HTTPProxy leads HTTP clients from the addresses of the pod and Service networks, and from the names of Services, to
// where their owners listen: plain requests, and CONNECT for everything else.
type HTTPProxy struct {
	plan      Plan
	resolver  *Resolver
	log       *slog.Logger
	transport *http.Transport
	reverse   *httputil.ReverseProxy
	relay     *relay

	tunnels sync.WaitGroup
	// done ends the tunnels, which an http.Server does not know of.
	done context.Context //nolint:containedctx // the life of the proxy itself
	end  context.CancelFunc
}

// errOutside is wrapped by errors about addresses that are not the cluster's.
var errOutside = errors.New("not an address of this cluster's pods or Services")

// NewHTTPProxy returns a handler to be served; Close ends its connections.
func NewHTTPProxy(plan Plan, resolver *Resolver, log *slog.Logger) *HTTPProxy {
	p := &HTTPProxy{plan: plan, resolver: resolver, log: log, relay: newRelay()}
	p.done, p.end = context.WithCancel(context.Background())
	p.transport = &http.Transport{
		Proxy:                 nil,
		DialContext:           p.dial,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: 0, // the client's own deadline ends the request
	}
	p.reverse = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.Host = r.In.Host
		},
		Transport:     p.transport,
		FlushInterval: -1,
		ErrorHandler:  p.fail,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return p
}

// Close ends all tunnels and idle connections and waits for them.
func (p *HTTPProxy) Close() {
	p.end()
	p.transport.CloseIdleConnections()
	p.tunnels.Wait()
}

// ServeHTTP implements http.Handler.
func (p *HTTPProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		p.connect(w, r)
		return
	}
	if r.URL.Scheme != "http" || r.URL.Host == "" {
		http.Error(w, "this is an HTTP proxy: send it requests for http://10.x.y.z:port/...", http.StatusBadRequest)
		return
	}
	p.reverse.ServeHTTP(w, r)
}

func (p *HTTPProxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) {
		return // the client has gone
	}
	status := http.StatusBadGateway
	if errors.Is(err, errOutside) {
		status = http.StatusForbidden
	}
	http.Error(w, fmt.Sprintf("proxy: %s %s: %v", r.Method, r.URL.Host, err), status)
}

// dial connects to the loopback twin of the address.
func (p *HTTPProxy) dial(ctx context.Context, _, address string) (net.Conn, error) {
	target, err := p.target(address)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: backendDialTimeout}
	return dialer.DialContext(ctx, "tcp4", target)
}

// target maps host:port as a client names it to where the host listens.
func (p *HTTPProxy) target(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port: %w", address, err)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		found := p.resolver.Lookup(host)
		if len(found) == 0 {
			return "", fmt.Errorf("%s: %w", host, errOutside)
		}
		addr = found[0]
	}
	if addr.IsLoopback() {
		// Someone has done the mapping already.
		if addr, err = FromLoopback(addr); err != nil {
			return "", fmt.Errorf("%s: %w", host, errOutside)
		}
	}
	if !p.plan.Contains(addr) {
		return "", fmt.Errorf("%s: %w", host, errOutside)
	}
	loopback, err := ToLoopback(addr)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(loopback.String(), port), nil
}

// connect serves a CONNECT request: a tunnel of bytes.
func (p *HTTPProxy) connect(w http.ResponseWriter, r *http.Request) {
	backend, err := p.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		_ = backend.Close()
		http.Error(w, "proxy: CONNECT needs HTTP/1.1", http.StatusHTTPVersionNotSupported)
		return
	}
	connection, buffered, err := hijacker.Hijack()
	if err != nil {
		_ = backend.Close()
		p.log.Debug("cannot take a connection over", "error", err)
		return
	}
	client, isTCP := connection.(*net.TCPConn)
	server, serverIsTCP := backend.(*net.TCPConn)
	if !isTCP || !serverIsTCP || !start(client, server, buffered.Reader) {
		_ = connection.Close()
		_ = backend.Close()
		return
	}
	p.tunnels.Go(func() { p.relay.join(p.done, client, server) })
}

// start tells the client that the tunnel is open and passes on what it has already sent.
func start(client, server *net.TCPConn, sent interface {
	Buffered() int
	Read([]byte) (int, error)
}) bool {
	if err := client.SetDeadline(time.Time{}); err != nil {
		return false
	}
	if _, err := client.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		return false
	}
	early := make([]byte, sent.Buffered())
	if len(early) == 0 {
		return true
	}
	n, err := sent.Read(early)
	if err != nil {
		return false
	}
	_, err = server.Write(early[:n])
	return err == nil
}
