package resources

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecoded(t *testing.T) {
	decoded := NewDecoded[map[string]int](2)
	first, err := decoded.Of(`{"a":1}`)
	require.NoError(t, err)
	require.Equal(t, map[string]int{"a": 1}, first)
	require.Zero(t, testing.AllocsPerRun(10, func() {
		again, err := decoded.Of(`{"a":1}`)
		if err != nil || again["a"] != 1 {
			t.Fatal("it says something else now")
		}
	}), "it is not read again")

	_, err = decoded.Of(`{`)
	require.Error(t, err)
	_, err = decoded.Of(`{`)
	require.Error(t, err, "an error is not remembered as an answer")
	for _, text := range []string{`{"b":2}`, `{"c":3}`} {
		_, err = decoded.Of(text)
		require.NoError(t, err)
	}
	require.Equal(t, 2, decoded.known.Len(), "it does not grow")
}
