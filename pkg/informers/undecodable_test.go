package informers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubefake "k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
)

// rawAPI is an API server that holds EMQX resources of any form. It answers lists, lists that are streamed, and watches.
type rawAPI struct {
	t       *testing.T
	streams bool // Whether it streams lists.

	mu       sync.Mutex
	version  int
	objects  map[string]string
	watchers map[chan string]bool
	history  []string // Event number i made version i+1.
	lists    int
}

func newRawAPI(t *testing.T, streams bool) (*rawAPI, versioned.Interface) {
	api := &rawAPI{t: t, streams: streams, objects: map[string]string{}, watchers: map[chan string]bool{}}
	server := httptest.NewServer(api)
	t.Cleanup(server.CloseClientConnections)
	client, err := NewEMQXClient(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	return api, client
}

// raw is the JSON of a resource. Its UID is made of its name.
func raw(name string, generation, version int, rest string) string {
	return fmt.Sprintf(`{"apiVersion":"apps.emqx.io/v2beta1","kind":"EMQX","metadata":{"name":%q,"namespace":"n","uid":"uid-%s","generation":%d,"resourceVersion":"%d",
		"annotations":{"apps.emqx.io/undecodable":"a stranger says so"}},%s}`, name, name, generation, version, rest)
}

// put stores a resource and tells those who watch.
func (a *rawAPI) put(name string, generation int, rest string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	kind := "ADDED"
	if a.objects[name] != "" {
		kind = "MODIFIED"
	}
	a.objects[name] = raw(name, generation, a.version, rest)
	a.tell(kind, a.objects[name])
}

func (a *rawAPI) remove(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.tell("DELETED", a.objects[name])
	delete(a.objects, name)
}

func (a *rawAPI) tell(kind, object string) {
	a.history = append(a.history, fmt.Sprintf(`{"type":%q,"object":%s}`, kind, object))
	for watcher := range a.watchers {
		watcher <- a.history[len(a.history)-1]
	}
}

// cut ends all watches, and forgets what happened.
func (a *rawAPI) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for watcher := range a.watchers {
		watcher <- `{"type":"ERROR","object":{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","code":410,"message":"too old"}}`
		close(watcher)
		delete(a.watchers, watcher)
	}
}

func (a *rawAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	query := r.URL.Query()
	switch {
	case query.Get("watch") == "" && strings.HasSuffix(r.URL.Path, "/emqxes"):
		a.list(w)
	case query.Get("watch") == "":
		a.one(w, r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
	case query.Get("sendInitialEvents") != "" && !a.streams:
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = fmt.Fprint(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Invalid","code":422,"message":"sendInitialEvents is forbidden"}`)
	default:
		a.watch(w, r, query.Get("sendInitialEvents") != "")
	}
}

func (a *rawAPI) list(w http.ResponseWriter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lists++
	var items []json.RawMessage
	for _, object := range a.objects {
		items = append(items, json.RawMessage(object))
	}
	require.NoError(a.t, json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": "apps.emqx.io/v2beta1", "kind": "EMQXList", "metadata": map[string]any{"resourceVersion": strconv.Itoa(a.version), "continue": ""}, "items": items,
	}))
}

func (a *rawAPI) one(w http.ResponseWriter, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = fmt.Fprint(w, a.objects[name])
}

func (a *rawAPI) watch(w http.ResponseWriter, r *http.Request, initial bool) {
	events := make(chan string, 100)
	a.mu.Lock()
	if since, err := strconv.Atoi(r.URL.Query().Get("resourceVersion")); err == nil && !initial {
		for _, event := range a.history[since:] {
			events <- event
		}
	}
	if initial {
		for _, object := range a.objects {
			events <- fmt.Sprintf(`{"type":"ADDED","object":%s}`, object)
		}
		events <- fmt.Sprintf(`{"type":"BOOKMARK","object":{"apiVersion":"apps.emqx.io/v2beta1","kind":"EMQX","spec":{"image":""},"metadata":{"resourceVersion":"%d","annotations":{%q:"true"}}}}`,
			a.version, metav1.InitialEventsAnnotationKey)
	}
	a.watchers[events] = true
	a.mu.Unlock()
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case event, open := <-events:
			if !open {
				return
			}
			_, _ = fmt.Fprintln(w, event)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			a.mu.Lock()
			delete(a.watchers, events)
			a.mu.Unlock()
			return
		}
	}
}

const (
	fine      = `"spec":{"image":"one"},"status":{"phase":"Done"}`
	newer     = `"spec":{"image":"two"},"status":{"phase":"Provisioning"}`
	undecoded = `"spec":{"image":"three","listenersServiceTemplate":{"metadata":{"annotations":{"a":true}}}},"status":{"phase":"Evacuating"}`
	badStatus = `"spec":{"image":"four"},"status":{"phase":"Switching","clients":"many"}`
)

// watched are caches that are filled from an API.
func watched(t *testing.T, client versioned.Interface) *Caches {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	require.NoError(t, metav1.AddMetaToScheme(scheme))
	caches, err := New(Clients{Kube: kubefake.NewSimpleClientset(), EMQX: client, Metadata: metadatafake.NewSimpleMetadataClient(scheme)}, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		caches.Wait()
	})
	filling, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	require.NoError(t, caches.Run(ctx))
	require.NoError(t, filling.Err())
	return caches
}

func TestOneUndecodableResourceCostsOnlyItself(t *testing.T) {
	for _, streams := range []bool{true, false} {
		t.Run(fmt.Sprintf("streamed lists %t", streams), func(t *testing.T) {
			api, client := newRawAPI(t, streams)
			api.put("good", 1, fine)
			api.put("bad", 1, undecoded)
			caches := watched(t, client)
			get := func(name string) *v2beta1.EMQX {
				emqx, _ := caches.EMQXes.Get(cache.ObjectName{Namespace: "n", Name: name})
				return emqx
			}
			until := func(why string, seen func() bool) {
				t.Helper()
				require.Eventually(t, seen, 10*time.Second, time.Millisecond, why)
			}
			require.Equal(t, "one", get("good").Spec.Image)
			require.Empty(t, get("good").Undecodable(), "only the decoder makes the note")
			require.Nil(t, get("bad"), "nothing is decided from a resource whose specification was never known")
			require.Len(t, caches.EMQXes.List(), 1)
			unknown, ok := caches.Unknown(cache.ObjectName{Namespace: "n", Name: "bad"})
			require.True(t, ok)
			require.Equal(t, v2beta1.PhaseEvacuating, unknown.Status.Phase)
			require.Contains(t, unknown.Undecodable(), "annotations")

			api.put("good", 2, newer)
			api.put("good", 3, undecoded)
			until("the last specification stands in", func() bool { return get("good").Undecodable() != "" })
			require.Equal(t, "two", get("good").Spec.Image)
			require.Equal(t, int64(2), get("good").Generation)
			require.Equal(t, v2beta1.PhaseEvacuating, get("good").Status.Phase, "the status goes on")
			require.Equal(t, "4", get("good").ResourceVersion)
			require.Len(t, caches.Undecodable(), 2)

			api.put("other", 1, fine)
			until("others are seen", func() bool { return get("other") != nil })

			api.cut()
			api.put("other", 1, newer)
			until("the list is taken anew", func() bool { return get("other").Spec.Image == "two" })
			require.Equal(t, "two", get("good").Spec.Image)

			api.put("good", 4, badStatus)
			until("a status is decoded by itself", func() bool { return strings.Contains(get("good").Undecodable(), "clients") })
			require.Equal(t, "two", get("good").Spec.Image)
			require.Equal(t, v2beta1.PhaseEvacuating, get("good").Status.Phase)

			api.put("good", 5, fine)
			api.put("bad", 2, fine)
			until("they are mended", func() bool { return get("bad") != nil && get("good").Undecodable() == "" })
			require.Empty(t, caches.Undecodable())

			api.put("bad", 3, undecoded)
			until("it is broken again", func() bool { return len(caches.Undecodable()) == 1 })
			api.remove("bad")
			until("it is deleted", func() bool { return len(caches.Undecodable()) == 0 && get("bad") == nil })
			require.Equal(t, !streams, api.lists > 0)
		})
	}
}

func TestAnUndecodableAnswerIsOneResource(t *testing.T) {
	api, client := newRawAPI(t, true)
	api.put("e", 1, undecoded)
	emqx, err := client.AppsV2beta1().EMQXes("n").Get(t.Context(), "e", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "1", emqx.ResourceVersion)
	require.NotEmpty(t, emqx.Undecodable())

	for _, test := range []struct{ reason, rest, want string }{
		{"a quantity whose value is never computed", `"spec":{"image":"e","coreTemplate":{"spec":{"extraContainers":[{"name":"x","resources":{"limits":{"cpu":"1e999999999"}}}]}}}`, "exponent"},
		{"text that looks like one", `"spec":{"image":"e","coreTemplate":{"spec":{"env":[{"name":"x","value":"1e999999999"}]}}}`, ""},
		{"a specification of another kind", `"spec":[]`, "cannot unmarshal array"},
		{"no specification", `"status":{}`, ""},
	} {
		t.Run(test.reason, func(t *testing.T) {
			api.put("e", 1, test.rest)
			list, err := client.AppsV2beta1().EMQXes("").List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			require.Len(t, list.Items, 1)
			if test.want == "" {
				require.Empty(t, list.Items[0].Undecodable())
			} else {
				require.Contains(t, list.Items[0].Undecodable(), test.want)
			}
		})
	}
}

// TestTrimEMQX: of a resource it is kept what it is and who asked for that.
func TestTrimEMQX(t *testing.T) {
	written := metav1.NewTime(time.Unix(7, 0))
	emqx := &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "{}", "a": "b"},
		ManagedFields: []metav1.ManagedFieldsEntry{
			{Manager: "kubectl-edit", Time: &written, FieldsV1: metav1.NewFieldsV1(`{"f:spec":{}}`)},
			{Manager: "emqx-bg-operator", Subresource: "status", Time: &written, FieldsV1: metav1.NewFieldsV1(`{"f:status":{}}`)},
		},
	}}
	trimEMQX(emqx)
	require.Equal(t, map[string]string{"a": "b"}, emqx.Annotations)
	require.Equal(t, []metav1.ManagedFieldsEntry{{Manager: "kubectl-edit", Time: &written}}, emqx.ManagedFields)
}
