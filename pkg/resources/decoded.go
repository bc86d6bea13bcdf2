package resources

import (
	"encoding/json"

	"k8s.io/utils/lru"
)

// Decoded remembers what the JSON texts say that were read last: those in the annotations of sets are the same at every look.
// What it returns is shared, and nobody changes it.
type Decoded[T any] struct{ known *lru.Cache }

// NewDecoded returns one for so many texts.
func NewDecoded[T any](texts int) Decoded[T] { return Decoded[T]{lru.New(texts)} }

// Of is what a text says. The error is json.Unmarshal's.
func (d Decoded[T]) Of(text string) (T, error) {
	if known, ok := d.known.Get(text); ok {
		if value, ok := known.(T); ok {
			return value, nil
		}
	}
	var value T
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return value, err
	}
	d.known.Add(text, value)
	return value, nil
}
