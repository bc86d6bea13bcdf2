package controlplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// Component is a started program.
type Component struct {
	// Name is one of Names.
	Name string
	// ID is its process.
	ID proc.Identity
	// exited is closed when the process has ended while this program watched.
	exited chan struct{}
	log    string
}

// Start starts the component in a session of its own, so that it outlives this program and the terminal.
func Start(dir state.Dir, s *state.State, name string) (*Component, error) {
	arguments := command(dir, s, name)
	logPath := dir.ComponentLog(name)
	output, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer func() { _ = output.Close() }()
	process := exec.Command(arguments[0], arguments[1:]...) //nolint:gosec // our own programs
	process.Dir = string(dir)
	process.Stdout, process.Stderr = output, output
	process.Env = componentEnvironment(s)
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := process.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	id, err := proc.Identify(process.Process.Pid)
	if err != nil {
		return nil, fmt.Errorf("%s ended at once: %w; %s", name, err, lastLines(logPath))
	}
	component := &Component{Name: name, ID: id, exited: make(chan struct{}), log: logPath}
	go func() {
		// Its end is what matters; how it ended is in its log.
		_ = process.Wait()
		close(component.exited)
	}()
	return component, nil
}

// componentEnvironment passes on little of the user's environment: a proxy configured there must not come between the
// parts of the cluster.
func componentEnvironment(s *state.State) []string {
	environment := []string{state.ClusterEnv + "=" + s.ID}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LANG", "TZ", "GOCOVERDIR"} {
		if value, set := os.LookupEnv(name); set {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}

// WaitReady polls until check returns nil. It fails early, with the end of the log, when the component exits, and when
// the context ends, with the last reason.
func (c *Component) WaitReady(ctx context.Context, check func(context.Context) error) error {
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := check(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-c.exited:
			return fmt.Errorf("%s has ended; its log %s closes with:\n%s", c.Name, c.log, lastLines(c.log))
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return fmt.Errorf("wait for %s: interrupted: %w", c.Name, ctx.Err())
			}
			return fmt.Errorf("%s is not ready (%w): %w; its log is %s", c.Name, ctx.Err(), err, c.log)
		case <-ticker.C:
		}
	}
}

// Health asks a component of the control plane whether it is ready. The node agent is not one of them.
type Health struct {
	client *http.Client
	s      *state.State
}

// NewHealth reads the admin's certificate from the directory.
func NewHealth(dir state.Dir, s *state.State) (*Health, error) {
	config, err := ClientTLS(dir)
	if err != nil {
		return nil, err
	}
	return &Health{s: s, client: &http.Client{Transport: &http.Transport{TLSClientConfig: config, Proxy: nil}}}, nil
}

// ClientTLS returns the configuration of a client that is the cluster's admin.
func ClientTLS(dir state.Dir) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(dir.PKI("admin.crt"), dir.PKI("admin.key"))
	if err != nil {
		return nil, fmt.Errorf("read the admin's certificate: %w", err)
	}
	ca, err := os.ReadFile(dir.PKI("ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("read the cluster's certificate authority: no certificate in it")
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// Close drops idle connections.
func (h *Health) Close() { h.client.CloseIdleConnections() }

// Check returns nil when the component says it is ready, else why it is not.
func (h *Health) Check(ctx context.Context, name string) error {
	ports := h.s.Ports
	switch name {
	case Etcd:
		return h.get(ctx, "http://"+h.s.Endpoint(ports.EtcdClient)+"/readyz", nil)
	case APIServer:
		return h.get(ctx, "https://"+h.s.Endpoint(ports.APIServer)+"/readyz", nil)
	case ControllerManager:
		return h.get(ctx, "https://"+h.s.Endpoint(ports.ControllerManager)+"/healthz", selfSigned())
	case Scheduler:
		return h.get(ctx, "https://"+h.s.Endpoint(ports.Scheduler)+"/healthz", selfSigned())
	case Agent:
		return h.get(ctx, "https://"+h.s.Endpoint(ports.Kubelet)+"/healthz", nil)
	default:
		return fmt.Errorf("no component is called %q", name)
	}
}

// selfSigned is for the programs that make their own certificate; they are asked for their health and nothing else.
func selfSigned() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // see above
}

func (h *Health) get(ctx context.Context, url string, config *tls.Config) error {
	client := h.client
	if config != nil {
		transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
		defer transport.CloseIdleConnections()
		client = &http.Client{Transport: transport}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", url, response.Status, bytes.TrimSpace(body))
	}
	return nil
}

// lastLines returns the end of a log, for an error message.
func lastLines(path string) string {
	const tail = 2048
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err == nil && info.Size() > tail {
		if _, err := file.Seek(-tail, io.SeekEnd); err != nil {
			return ""
		}
	}
	raw, err := io.ReadAll(io.LimitReader(file, tail))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if len(lines) > 6 {
		lines = lines[len(lines)-6:]
	}
	return strings.Join(lines, "\n")
}
