package upgrade

import (
	"testing"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

func TestNewest(t *testing.T) {
	version := func(uid, version string) *v2beta1.EMQX {
		return &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), ResourceVersion: version}}
	}
	undecodable := version("a", "12")
	undecodable.Annotations = map[string]string{v2beta1.AnnotationUndecodable: "a field is a text"}
	for _, tt := range []struct {
		name                    string
		cached, written, newest *v2beta1.EMQX
	}{
		{"nothing was written", version("a", "9"), nil, version("a", "9")},
		{"the cache lags", version("a", "9"), version("a", "12"), version("a", "12")},
		{"the cache has seen it", version("a", "12"), version("a", "12"), version("a", "12")},
		{"the cache has seen more", version("a", "100"), version("a", "12"), version("a", "100")},
		{"another has its name", version("b", "9"), version("a", "12"), version("b", "9")},
		{"what was written cannot be decoded", version("a", "9"), undecodable, version("a", "9")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, key := newWrites(), cache.ObjectName{Namespace: "n", Name: "x"}
			if tt.written != nil {
				w.recordResource(key, tt.written)
			}
			assert.Equal(t, tt.newest, w.newest(key, tt.cached))
			if _, ok := w.resources[key]; ok {
				assert.NotEqual(t, tt.cached, tt.newest, "what the cache has seen is forgotten")
			}
			if tt.written != nil {
				w.seen(&v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "x", UID: "a", ResourceVersion: "1000"}})
				assert.Empty(t, w.resources, "also without a sync")
			}
		})
	}
}
