package resources

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Names in the Secret of the API keys, which are no secrets.
const (
	// BootstrapAPIKeyKey is the entry that EMQX reads: a key a line.
	BootstrapAPIKeyKey = "bootstrap_api_key" //nolint:gosec // The name of an entry.
	// PreviousKeysKey is the entry with the operator's keys of before, as lines like those, the newest first: nodes that run may
	// know none other yet. EMQX does not read it.
	PreviousKeysKey = "previous_operator_keys"
	// OperatorAPIKey is the name of the operator's own API key.
	OperatorAPIKey = "emqx-operator-controller" //nolint:gosec // A name.
	// SystemAPIKey is the name of the operator's second key, where EMQX knows scopes: a key that may change the system may do
	// nothing else, from some versions on.
	SystemAPIKey = "emqx-operator-controller-system" //nolint:gosec // A name.
)

// What the operator's keys may do where EMQX knows scopes: members, evacuations and the licence with the one; durable storage,
// listeners, and having the file of keys read, with the other.
const (
	operatorScopes = "cluster_operations,license"
	systemScopes   = "system"
)

// mostPrevious is how many of the operator's keys of before are kept.
const mostPrevious = 3

// APIKey is an API key with its password.
type APIKey struct{ Key, Secret string }

// OperatorKey is an API key of the operator's own.
type OperatorKey struct {
	// Secret is its password.
	Secret string
	// Scoped tells that there are two, with the same password, which may do no more than they need.
	Scoped bool
}

// String keeps the password out of logs.
func (OperatorKey) String() string { return "***" }

// GoString keeps the password out of logs, too.
func (k OperatorKey) GoString() string { return k.String() }

func (k OperatorKey) lines() string {
	if !k.Scoped {
		return OperatorAPIKey + ":" + k.Secret + "\n"
	}
	const role = ":administrator:"
	return SystemAPIKey + ":" + k.Secret + role + systemScopes + "\n" + OperatorAPIKey + ":" + k.Secret + role + operatorScopes + "\n"
}

// KeysData are the entries of the Secret of the API keys. In what EMQX reads the operator's own key is the last: EMQX ends reading at
// a line that it does not take, so that it knows all keys when it knows this one.
type KeysData struct {
	// Users are the user's keys.
	Users []APIKey
	// Own is the operator's key, and Previous are those that it had before, the newest first.
	Own      OperatorKey
	Previous []OperatorKey
}

// Entries are the entries as they are written.
func (d KeysData) Entries() map[string][]byte {
	var file, previous strings.Builder
	for _, key := range d.Users {
		fmt.Fprintf(&file, "%s:%s\n", key.Key, key.Secret)
	}
	file.WriteString(d.Own.lines())
	for _, key := range d.Previous {
		previous.WriteString(key.lines())
	}
	entries := map[string][]byte{BootstrapAPIKeyKey: []byte(file.String())}
	if previous.Len() > 0 {
		entries[PreviousKeysKey] = []byte(previous.String())
	}
	return entries
}

// sameLines reports whether two files have the same lines, but for blanks, which EMQX does not mind.
func sameLines(a, b []byte) bool { return slices.Equal(linesOf(a), linesOf(b)) }

func linesOf(file []byte) []string {
	var lines []string
	for line := range strings.Lines(string(file)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// OperatorKeys are the operator's keys in the entries of the Secret of the API keys: its own, if there is one, and those of before.
func OperatorKeys(entries map[string][]byte) (own *OperatorKey, previous []OperatorKey) {
	if keys := operatorKeysIn(entries[BootstrapAPIKeyKey]); len(keys) > 0 {
		own = &keys[len(keys)-1] // The last is the one that counts.
	}
	return own, operatorKeysIn(entries[PreviousKeysKey])
}

func operatorKeysIn(file []byte) []OperatorKey {
	var keys []OperatorKey
	for _, line := range linesOf(file) {
		name, rest, _ := strings.Cut(line, ":")
		secret, rest, _ := strings.Cut(rest, ":")
		if _, scopes, _ := strings.Cut(rest, ":"); name == OperatorAPIKey && secret != "" {
			keys = append(keys, OperatorKey{Secret: secret, Scoped: scopes != ""})
		}
	}
	return keys
}

// Renewed is what the Secret of the API keys shall hold that holds some entries, or none. The operator's password is another
// when anything else differs, so that it tells who has read the new file; one that was lost is the one that nodes took last, nil for
// unknown. random makes a password, and scoped tells whether the operator's keys have scopes: nil leaves that as it is.
func Renewed(entries map[string][]byte, users []APIKey, scoped *bool, taken *OperatorKey, random func() string) KeysData {
	own, previous := OperatorKeys(entries)
	next := KeysData{Users: users}
	switch {
	case scoped != nil:
		next.Own.Scoped = *scoped
	case own != nil:
		next.Own.Scoped = own.Scoped
	}
	var before []OperatorKey
	if taken != nil {
		before = append(before, *taken)
	}
	if own != nil {
		before = append(before, *own)
	}
	before = append(before, previous...)
	switch {
	case own != nil && !KeysDiffer(entries, users, scoped):
		next.Own = *own
	case own == nil && len(before) > 0:
		next.Own.Secret = before[0].Secret
	default:
		next.Own.Secret = random()
	}
	for _, key := range before {
		if key != next.Own && !slices.Contains(next.Previous, key) && len(next.Previous) < mostPrevious {
			next.Previous = append(next.Previous, key)
		}
	}
	return next
}

// KeysDiffer reports whether EMQX's file is not what it shall be, but for the operator's password; see Renewed.
func KeysDiffer(entries map[string][]byte, users []APIKey, scoped *bool) bool {
	own, _ := OperatorKeys(entries)
	if own == nil {
		return true
	}
	wanted := *own
	if scoped != nil {
		wanted.Scoped = *scoped
	}
	return !sameLines(entries[BootstrapAPIKeyKey], KeysData{Users: users, Own: wanted}.Entries()[BootstrapAPIKeyKey])
}

// BootstrapAPIKeySecret is the Secret of the API keys as it is made.
func BootstrapAPIKeySecret(emqx *v2beta1.EMQX, data KeysData) *corev1.Secret {
	made := secret(emqx, emqx.BootstrapAPIKeySecretName(), "", "")
	made.Data = data.Entries()
	return made
}
