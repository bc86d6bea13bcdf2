package scale

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/gauge"
)

const (
	metricsPort, healthPort, profilesPort = "8080", "8081", "6060"
	// readyLimit bounds the time until the operator's caches are filled, stopLimit that until it has ended.
	readyLimit, stopLimit = 2 * time.Minute, 90 * time.Second
)

// operator is a run of the operator.
type operator struct {
	command *exec.Cmd
	process *gauge.Process
	client  *http.Client
	address string
	started time.Time
	ended   chan struct{}
	err     error
}

// start starts the operator and waits until it is ready, which means that its caches are filled.
func (r *run) start(ctx context.Context, flags ...string) (*operator, error) {
	log, err := os.OpenFile(filepath.Join(r.config.Dir, "operator.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the operator's log: %w", err)
	}
	defer func() { _ = log.Close() }() // The program that was started has it, too.
	o := &operator{address: r.operatorAddress(), ended: make(chan struct{}), client: &http.Client{Transport: &http.Transport{Proxy: nil}}}
	arguments := append([]string{
		"--kubeconfig", r.kubeconfig(), "--leader-election-namespace", operatorNamespace, "--bind-address", o.address,
		"--pprof-address", net.JoinHostPort(o.address, profilesPort),
	}, flags...)
	o.command = exec.Command(r.config.operator(), arguments...) //nolint:gosec // Our own program.
	o.command.Stdout, o.command.Stderr = log, log
	o.command.Env = []string{"HOME=" + r.config.Dir} // No proxy, no other settings.
	o.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	o.started = time.Now()
	if err := o.begin(); err != nil {
		return nil, fmt.Errorf("start the operator: %w", err)
	}
	if o.process, err = gauge.NewProcess(o.command.Process.Pid); err != nil {
		return nil, errors.Join(err, o.stop())
	}
	err = until(ctx, readyLimit, "the operator", func() (bool, error) {
		select {
		case <-o.ended:
			return false, fmt.Errorf("it ended: %w; its log is %s", o.err, log.Name())
		default:
		}
		_, err := gauge.Get(ctx, o.client, o.url(healthPort, "/readyz"))
		return err == nil, nil
	})
	if err != nil {
		return nil, errors.Join(err, o.stop())
	}
	return o, nil
}

// begin starts the process and watches it. It is killed when the thread that started it ends, so the thread is kept for it.
func (o *operator) begin() error {
	begun := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(o.ended)
		err := o.command.Start()
		begun <- err
		if err == nil {
			o.err = o.command.Wait()
		}
	}()
	return <-begun
}

func (o *operator) url(port, path string) string {
	return "http://" + net.JoinHostPort(o.address, port) + path
}

func (o *operator) scrape(ctx context.Context) (gauge.Scrape, error) {
	return gauge.Metrics(ctx, o.client, o.url(metricsPort, "/metrics"))
}

// stop has the operator end in good order.
func (o *operator) stop() error {
	o.client.CloseIdleConnections()
	select {
	case <-o.ended:
		return nil
	default:
	}
	if err := o.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the operator: %w", err)
	}
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-o.ended:
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("stop the operator: it did not end within %s", stopLimit), o.command.Process.Kill())
	}
}

// profile saves a profile.
func (o *operator) profile(ctx context.Context, name, path string) error {
	data, err := gauge.Get(ctx, o.client, o.url(profilesPort, "/debug/pprof/"+name))
	if err != nil {
		return fmt.Errorf("take the profile %s: %w", name, err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("save the profile %s: %w", name, err)
	}
	return nil
}
