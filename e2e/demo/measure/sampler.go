package measure

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

const (
	// askInterval is how often each node is asked for its clients: fine enough for a picture.
	askInterval = 500 * time.Millisecond
	// tickInterval is how often counts are put on record.
	tickInterval = 100 * time.Millisecond
	apiPort      = 18083
)

// RevisionSample is how many clients each revision had at a time.
type RevisionSample struct {
	At      time.Time      `json:"at"`
	Clients map[string]int `json:"clients"`
}

// Sampler asks every node for the number of its clients. A node that does not answer keeps its last number.
type Sampler struct {
	observer *Observer
	target   Target
	state    *state.State
	client   *emqx.Client
	tasks    sync.WaitGroup

	mu      sync.Mutex
	taken   emqx.Credentials  // The key that EMQX took last.
	counts  map[string]int    // By pod.
	of      map[string]string // Revision by pod.
	asking  map[string]bool   // By pod and address.
	samples []RevisionSample
}

// readCredentials reads the operator's keys to the API of EMQX: its own, then those that it had before.
func readCredentials(ctx context.Context, target Target, name string) ([]emqx.Credentials, error) {
	secret, err := target.Kube.CoreV1().Secrets(target.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the API key from Secret %s: %w", name, err)
	}
	own, previous := resources.OperatorKeys(secret.Data)
	if own == nil {
		return nil, fmt.Errorf("read the API key from Secret %s: it has none of the operator", name)
	}
	var known []emqx.Credentials
	for _, key := range append([]resources.OperatorKey{*own}, previous...) {
		credentials := emqx.Credentials{Key: resources.OperatorAPIKey, Secret: key.Secret}
		if key.Scoped {
			credentials.SystemKey = resources.SystemAPIKey
		}
		known = append(known, credentials)
	}
	return known, nil
}

// withCredentials asks with the first of the operator's keys that EMQX takes: keys may change while the upgrade goes on.
func withCredentials(ctx context.Context, target Target, name string, ask func(emqx.Credentials) error) error {
	known, err := readCredentials(ctx, target, name)
	if err != nil {
		return err
	}
	for _, credentials := range known {
		if err = ask(credentials); !errors.Is(err, emqx.ErrUnauthorized) {
			return err
		}
	}
	return err
}

// Sample starts to ask the nodes, until ctx ends; Wait waits for that.
func Sample(ctx context.Context, target Target, observer *Observer) (*Sampler, error) {
	known, err := readCredentials(ctx, target, observer.Latest().BootstrapAPIKeySecretName())
	if err != nil {
		return nil, err
	}
	s := &Sampler{
		observer: observer, target: target, state: target.State, client: emqx.NewClient(nil), taken: known[0],
		counts: map[string]int{}, of: map[string]string{}, asking: map[string]bool{},
	}
	s.tasks.Go(func() { s.loop(ctx) })
	return s, nil
}

// credentials are the operator's key that EMQX took last.
func (s *Sampler) credentials() emqx.Credentials {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// Wait waits until nobody is asked any more.
func (s *Sampler) Wait() { s.tasks.Wait() }

func (s *Sampler) loop(ctx context.Context) {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			s.tick(ctx, now)
		}
	}
}

// tick puts the counts on record and asks nodes that are new.
func (s *Sampler) tick(ctx context.Context, now time.Time) {
	pods := s.observer.present()
	s.mu.Lock()
	defer s.mu.Unlock()
	there := map[string]bool{}
	for _, pod := range pods {
		there[pod.name] = true
		s.of[pod.name] = pod.revision
		if id := pod.name + pod.ip; pod.ip != "" && !s.asking[id] {
			s.asking[id] = true
			s.tasks.Go(func() { s.ask(ctx, pod, id) })
		}
	}
	maps.DeleteFunc(s.counts, func(pod string, _ int) bool { return !there[pod] })
	s.samples = append(s.samples, RevisionSample{At: now, Clients: s.sum()})
}

// sum adds the counts of each revision's nodes.
func (s *Sampler) sum() map[string]int {
	sums := map[string]int{}
	for pod, count := range s.counts {
		sums[s.of[pod]] += count
	}
	return sums
}

// ask asks one node again and again while its pod is there at that address.
func (s *Sampler) ask(ctx context.Context, pod podFacts, id string) {
	defer func() {
		s.mu.Lock()
		delete(s.asking, id)
		s.mu.Unlock()
	}()
	ticker := time.NewTicker(askInterval)
	defer ticker.Stop()
	for s.stillThere(pod) {
		if count, err := s.clients(ctx, pod); err == nil {
			s.mu.Lock()
			s.counts[pod.name] = count
			s.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Sampler) stillThere(pod podFacts) bool {
	for _, present := range s.observer.present() {
		if present.name == pod.name && present.ip == pod.ip {
			return true
		}
	}
	return false
}

// clients asks the node of a pod how many clients it has.
func (s *Sampler) clients(ctx context.Context, pod podFacts) (int, error) {
	address, err := s.apiAddress(pod)
	if err != nil {
		return 0, err
	}
	node := emqx.Node{Name: "emqx@" + pod.name + "." + s.observer.Latest().NodeDomain(), URL: address}
	credentials := s.credentials()
	info, err := s.client.Info(ctx, node, credentials)
	if errors.Is(err, emqx.ErrUnauthorized) {
		err = withCredentials(ctx, s.target, s.observer.Latest().BootstrapAPIKeySecretName(), func(other emqx.Credentials) error {
			info, err = s.client.Info(ctx, node, other)
			credentials = other
			return err
		})
	}
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.taken = credentials
	s.mu.Unlock()
	if !info.LiveConnections.Known {
		return 0, fmt.Errorf("%s does not know how many clients it has", pod.name)
	}
	return int(info.LiveConnections.Value), nil
}

// clientsOf asks the nodes of a revision for their clients until there are as many as expected, for a limited time.
func (s *Sampler) clientsOf(ctx context.Context, revision string, expected int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	ticker := time.NewTicker(askInterval)
	defer ticker.Stop()
	for {
		sum := 0
		for _, pod := range s.observer.present() {
			if pod.revision != revision {
				continue
			}
			clients, err := s.clients(ctx, pod)
			if err != nil {
				return 0, fmt.Errorf("count the clients of revision %s: %w", revision, err)
			}
			sum += clients
		}
		if sum == expected {
			return sum, nil
		}
		select {
		case <-ctx.Done():
			return sum, nil
		case <-ticker.C:
		}
	}
}

// apiAddress is where the API of a pod's node is reached on this machine.
func (s *Sampler) apiAddress(pod podFacts) (string, error) {
	address, err := s.state.Reach(pod.ip)
	if err != nil {
		return "", fmt.Errorf("find the address of pod %s: %w", pod.name, err)
	}
	return fmt.Sprintf("http://%s:%d", address, apiPort), nil
}

// now returns the clients of each revision.
func (s *Sampler) now() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sum()
}

// recorded returns the samples so far.
func (s *Sampler) recorded() []RevisionSample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]RevisionSample(nil), s.samples...)
}

// plainHTTP is a client for addresses of this machine.
func plainHTTP() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}
