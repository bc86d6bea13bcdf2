package measure

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBusyUntil(t *testing.T) {
	require.InDelta(t, 0.75, processorTime{idle: 10, total: 100}.busyUntil(processorTime{idle: 20, total: 140}), 1e-9)
	require.Zero(t, processorTime{}.busyUntil(processorTime{idle: 20, total: 140}), "what is not known")
	require.Zero(t, processorTime{idle: 1, total: 2}.busyUntil(processorTime{}))
	require.Positive(t, processors().total, "this machine tells it")
}
