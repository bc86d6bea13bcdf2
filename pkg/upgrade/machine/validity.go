package machine

import (
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Undecodable is the reason that is given for a specification that the operator's types do not take.
const Undecodable = "Undecodable"

// UndecodableMessage says so to people.
func UndecodableMessage(emqx *v2beta1.EMQX) string {
	message := "the resource cannot be decoded: " + emqx.Undecodable()
	if emqx.Unknown() {
		return message + "; its cluster stays as it is until that is corrected"
	}
	return message + "; the last specification that could be goes on being served"
}

// undecodable: the specification in the Snapshot is not the one that the user wrote last.
func undecodable(s Snapshot) *Lack {
	if s.EMQX.Undecodable() == "" {
		return nil
	}
	return &Lack{Undecodable, UndecodableMessage(s.EMQX)}
}
