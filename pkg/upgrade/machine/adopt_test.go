package machine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A set is what the specification asks for, whatever its name, when it was noted so, or when another operator called it
// the update revision and it runs the image that is asked for.
func TestRealized(t *testing.T) {
	updateOf2x := func(s *Snapshot) { s.EMQX.Status.CoreNodesStatus.UpdateRevision = "blue" }
	imageOfBlue := func(image string) func(*Snapshot) { return withSet("blue", func(s *Set) { s.Image = image }) }
	for _, test := range []struct {
		reason string
		change []func(*Snapshot)
		want   string
	}{
		{"by its own name", nil, "green"},
		{"adopted before", []func(*Snapshot){without("green"), withSet("blue", func(s *Set) { s.Intent = `{"image":"b"}` })}, "blue"},
		{"to be adopted", []func(*Snapshot){without("green"), foreign("blue"), updateOf2x, imageOfBlue("b")}, "blue"},
		{"another image", []func(*Snapshot){without("green"), foreign("blue"), updateOf2x, imageOfBlue("a")}, ""},
		{"not the update revision of the other operator", []func(*Snapshot){without("green"), foreign("blue"), imageOfBlue("b")}, ""},
		{"made by this operator for something else", []func(*Snapshot){without("green"), updateOf2x, imageOfBlue("b")}, ""},
		{"being deleted", []func(*Snapshot){without("green"), foreign("blue"), updateOf2x, imageOfBlue("b"), withSet("blue", func(s *Set) { s.Deleting = true })}, ""},
		{"by its meaning, whatever wrote it down", []func(*Snapshot){without("green"), withSet("blue", func(s *Set) { s.Intent = `{"image": "b", "labels": {}}` })}, "blue"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s := upgrading("", test.change...)
			found := ""
			if set := realized(s.EMQX, s.Sets, s.Wanted[Core].Intent); set != nil {
				found = set.Revision
			}
			require.Equal(t, test.want, found)
		})
	}
}
