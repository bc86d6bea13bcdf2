package containerlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cri-client/pkg/logs"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Options select what to read.
type Options struct {
	// TailLines, LimitBytes and Since are as in PodLogOptions; nil for all.
	TailLines, LimitBytes *int64
	Since                 time.Time
	// Follow goes on until the container ends.
	Follow bool
	// Timestamps puts the time before every line.
	Timestamps bool
	// Stream restricts the output to "Stdout" or "Stderr"; empty or "All" for both.
	Stream string
	// Running reports whether the container still runs; it is called while following.
	Running func() bool
}

// Read writes the log to w until its end or, following, the container's.
func Read(ctx context.Context, path string, options Options, w io.Writer) error {
	stdout, stderr := w, w
	switch options.Stream {
	case corev1.LogStreamStdout:
		stderr = nil
	case corev1.LogStreamStderr:
		stdout = nil
	}
	err := logs.ReadLogs(ctx, path, path, &logs.LogOptions{
		TailLines: options.TailLines, LimitBytes: options.LimitBytes, Since: options.Since,
		Follow: options.Follow, Timestamp: options.Timestamps,
	}, runtime{running: options.Running}, stdout, stderr)
	if err != nil {
		return fmt.Errorf("read the log %s: %w", path, err)
	}
	return nil
}

const (
	fallbackLines = 80
	fallbackBytes = 2048
)

// Tail returns the end of a log for a termination message: at most 80 lines and 2048 bytes.
func Tail(ctx context.Context, path string) string {
	var tail bytes.Buffer
	lines := int64(fallbackLines)
	if err := Read(ctx, path, Options{TailLines: &lines}, &tail); err != nil {
		return fmt.Sprintf("Error on reading termination message from logs: %v", err)
	}
	raw := tail.Bytes()
	if len(raw) > fallbackBytes {
		raw = raw[len(raw)-fallbackBytes:]
	}
	return string(raw)
}

// runtime is the part of a container runtime that the reader needs.
type runtime struct {
	internalapi.RuntimeService
	running func() bool
}

// ContainerStatus implements the one method that is called.
func (r runtime) ContainerStatus(context.Context, string, bool) (*runtimeapi.ContainerStatusResponse, error) {
	current := runtimeapi.ContainerState_CONTAINER_EXITED
	if r.running != nil && r.running() {
		current = runtimeapi.ContainerState_CONTAINER_RUNNING
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{State: current}}, nil
}
