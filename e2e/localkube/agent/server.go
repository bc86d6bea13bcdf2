package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/containerlog"
)

// The paths of the agent's own API, which `cluster` uses.
const (
	// PodsPath lists PodInfo.
	PodsPath = "/local/pods"
	// SignalPath sends a signal: POST with the parameters namespace, pod, container (optional) and signal.
	SignalPath = "/local/signal"
)

// askTimeout bounds requests that a pod's worker answers.
const askTimeout = 10 * time.Second

// Signals are those that can be sent to a container by name.
func Signals() map[string]syscall.Signal {
	return map[string]syscall.Signal{
		"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM,
	}
}

// server is the node's HTTPS server: the part of a kubelet's that serves logs, and the agent's own API.
type server struct {
	manager *manager
	config  *Config
}

// newServer returns the server and its listener. It accepts only clients with a certificate of the cluster.
func newServer(ctx context.Context, config *Config, m *manager) (*http.Server, net.Listener, error) {
	certificate, err := tls.LoadX509KeyPair(config.Dir.PKI("agent.crt"), config.Dir.PKI("agent.key"))
	if err != nil {
		return nil, nil, fmt.Errorf("read the agent's certificate: %w", err)
	}
	ca, err := os.ReadFile(config.Dir.PKI("ca.crt"))
	if err != nil {
		return nil, nil, fmt.Errorf("read the cluster's certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, nil, errors.New("read the cluster's certificate authority: no certificate in it")
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp4", config.State.Endpoint(config.State.Ports.Kubelet))
	if err != nil {
		return nil, nil, fmt.Errorf("open the node's port: %w", err)
	}
	s := &server{manager: m, config: config}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	mux.HandleFunc("GET "+PodsPath, s.pods)
	mux.HandleFunc("POST "+SignalPath, s.signal)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "the local node agent does not serve "+r.URL.Path+" (there is no exec, attach or port-forward; "+
			"processes of pods can be looked at from this machine, see `cluster status`)", http.StatusNotImplemented)
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{certificate}, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
		},
	}, listener, nil
}

func (s *server) pods(w http.ResponseWriter, _ *http.Request) {
	list := s.manager.list()
	sort.Slice(list, func(i, j int) bool {
		if list[i].Namespace != list[j].Namespace {
			return list[i].Namespace < list[j].Namespace
		}
		return list[i].Name < list[j].Name
	})
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

func (s *server) signal(w http.ResponseWriter, r *http.Request) {
	signal, known := Signals()[r.FormValue("signal")]
	if !known {
		http.Error(w, fmt.Sprintf("no signal is called %q", r.FormValue("signal")), http.StatusBadRequest)
		return
	}
	worker, err := s.manager.find(r.FormValue("namespace"), r.FormValue("pod"))
	if err != nil {
		fail(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	group, err := worker.signal(ctx, r.FormValue("container"), signal)
	if err != nil {
		fail(w, err)
		return
	}
	_, _ = fmt.Fprintf(w, "%d\n", group)
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if errors.Is(err, errNoPod) {
		status = http.StatusNotFound
	}
	http.Error(w, err.Error(), status)
}

// logs serves what kube-apiserver asks for on behalf of `kubectl logs`.
func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	worker, err := s.manager.find(r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		fail(w, err)
		return
	}
	options, err := logOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	path, running, err := worker.logFile(ctx, s.config, r.PathValue("container"), r.FormValue("previous") == "true")
	if err != nil {
		fail(w, err)
		return
	}
	options.Running = running
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	out := &flusher{writer: w}
	if flush, ok := w.(http.Flusher); ok && options.Follow {
		out.flush = flush.Flush
		flush.Flush()
	}
	if err := containerlog.Read(r.Context(), path, options, out); err != nil && r.Context().Err() == nil {
		_, _ = fmt.Fprintf(w, "the log cannot be read: %v\n", err)
	}
}

// flusher sends every piece on at once.
type flusher struct {
	writer http.ResponseWriter
	flush  func()
}

// Write implements io.Writer.
func (f *flusher) Write(p []byte) (int, error) {
	n, err := f.writer.Write(p)
	if f.flush != nil {
		f.flush()
	}
	return n, err
}

func logOptions(r *http.Request) (containerlog.Options, error) {
	options := containerlog.Options{
		Follow: r.FormValue("follow") == "true", Timestamps: r.FormValue("timestamps") == "true", Stream: r.FormValue("stream"),
	}
	for name, target := range map[string]**int64{"tailLines": &options.TailLines, "limitBytes": &options.LimitBytes} {
		value, err := number(r, name)
		if err != nil {
			return options, err
		}
		*target = value
	}
	seconds, err := number(r, "sinceSeconds")
	if err != nil {
		return options, err
	}
	if seconds != nil {
		options.Since = time.Now().Add(-time.Duration(*seconds) * time.Second)
	}
	if since := r.FormValue("sinceTime"); since != "" {
		if options.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return options, fmt.Errorf("read parameter sinceTime: %w", err)
		}
	}
	return options, nil
}

func number(r *http.Request, name string) (*int64, error) {
	text := r.FormValue(name)
	if text == "" {
		return nil, nil //nolint:nilnil // absent
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read parameter %s: %w", name, err)
	}
	return &value, nil
}

// logFile finds the log file of a container's current or previous run; running tells whether that run still goes on.
func (w *worker) logFile(ctx context.Context, config *Config, name string, previous bool) (path string, running func() bool, err error) {
	type found struct {
		start int32
		life  context.Context //nolint:containedctx // passed on
	}
	f, err := ask(ctx, w, func() (found, error) {
		c, err := w.container(name)
		if err != nil {
			return found{}, err
		}
		start := c.restarts
		if previous {
			start--
		}
		if !c.launched || start < 0 {
			what := "has not been started"
			if previous {
				what = "has no previous run"
			}
			return found{}, fmt.Errorf("%w: container %s of pod %s/%s %s", errNoPod, name, w.pod.Namespace, w.pod.Name, what)
		}
		if c.run == nil || previous {
			return found{start: start}, nil
		}
		return found{start: start, life: c.run.life}, nil
	})
	if err != nil {
		return "", nil, err
	}
	running = func() bool { return f.life != nil && f.life.Err() == nil }
	return containerlog.Path(podLogDir(config.Dir, w.podNow()), name, f.start), running, nil
}

// podNow returns enough of the pod to find its files, from any goroutine.
func (w *worker) podNow() *corev1.Pod {
	info := w.info.Load()
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID = info.Namespace, info.Name, info.UID
	return pod
}
