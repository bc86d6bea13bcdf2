package upgrade

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// keyName is what the schema takes for the name of a key that is given in the specification itself.
var keyName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// apiKey is a key out of a Secret, which no schema has seen. In EMQX's file a key is a line, with a colon between its name
// and its password; a second key of the operator's name would shut the operator out. A line break at the end is what
// editors leave.
func apiKey(name, secret string) (resources.APIKey, error) {
	key := resources.APIKey{Key: strings.TrimRight(name, "\r\n"), Secret: strings.TrimRight(secret, "\r\n")}
	switch {
	case key.Key == resources.OperatorAPIKey:
		return key, fmt.Errorf("key %q is the operator's own: %w", key.Key, errInvalidReference)
	case !keyName.MatchString(key.Key):
		return key, fmt.Errorf("the name of the key must have letters, digits, - and _ only: %w", errInvalidReference)
	case key.Secret == "" || strings.ContainsAny(key.Secret, ":\r\n"):
		return key, fmt.Errorf("the secret of key %q must be one line without a colon: %w", key.Key, errInvalidReference)
	}
	return key, nil
}
