package evacuate

import (
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// keys are the API keys that EMQX may know the operator by. There are several while one takes the place of another: EMQX goes over
// to the new one when a node reads its file of keys, and back when a node starts that has the old file.
type keys struct {
	read    func(context.Context) ([]emqx.Credentials, error)
	reading singleflight.Group

	mu     sync.Mutex
	newest *emqx.Credentials  // The first of those that were read.
	known  []emqx.Credentials // In the order in which they are tried: the one that was taken last is the first.
	last   *emqx.Credentials  // The one that was taken last, whether it is still known or not.
}

// with does something with a key that EMQX takes: those that are known are tried in turn. What EMQX refuses for its key it has not
// done. When it takes none, they are read again the next time.
func (k *keys) with(ctx context.Context, try func(emqx.Credentials) error) error {
	known, err := k.get(ctx)
	if err != nil {
		return err
	}
	for _, credentials := range known {
		err = try(credentials)
		if !errors.Is(err, emqx.ErrUnauthorized) {
			if err == nil {
				k.took(credentials)
			}
			return err
		}
	}
	k.forget(known)
	return err
}

// get are the keys that are known, read once for all who want them when there are none.
func (k *keys) get(ctx context.Context) ([]emqx.Credentials, error) {
	k.mu.Lock()
	known := k.known
	k.mu.Unlock()
	if len(known) > 0 {
		return known, nil
	}
	// That one of those who wait gives up is no reason to stop for the others: reading has a deadline of its own.
	reading := k.reading.DoChan("", func() (any, error) {
		read, err := k.read(context.WithoutCancel(ctx))
		k.mu.Lock()
		defer k.mu.Unlock()
		switch {
		case err != nil && k.last != nil:
			return []emqx.Credentials{*k.last}, nil // What was taken last is as good while the Secret says nothing.
		case err != nil:
			return nil, err
		}
		if k.last != nil && !slices.Contains(read, *k.last) {
			read = append(slices.Clip(read), *k.last) // The nodes may not have heard yet.
		}
		if len(read) > 0 {
			k.newest = &read[0]
		}
		k.known = slices.Clone(read)
		return k.known, nil
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case read := <-reading:
		known, _ := read.Val.([]emqx.Credentials)
		return known, read.Err
	}
}

// took notes that EMQX took a key: it is the first to be tried from now on.
func (k *keys) took(credentials emqx.Credentials) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = &credentials
	if i := slices.Index(k.known, credentials); i > 0 {
		k.known = slices.Concat([]emqx.Credentials{credentials}, k.known[:i], k.known[i+1:])
	}
}

// first is the newest key that was read; false when none was.
func (k *keys) first() (emqx.Credentials, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.newest == nil {
		return emqx.Credentials{}, false
	}
	return *k.newest, true
}

// taken is the key that EMQX took last. It never waits.
func (k *keys) taken() (emqx.Credentials, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last == nil {
		return emqx.Credentials{}, false
	}
	return *k.last, true
}

// forget drops keys that EMQX refused, unless others are known by now.
func (k *keys) forget(refused []emqx.Credentials) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.known) == len(refused) && !slices.ContainsFunc(k.known, func(c emqx.Credentials) bool { return !slices.Contains(refused, c) }) {
		k.known = nil
	}
}

// renew has the keys be read again.
func (k *keys) renew() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known = nil
}
