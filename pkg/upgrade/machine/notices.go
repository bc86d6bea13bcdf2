package machine

import (
	"fmt"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

const fieldHasNoEffect = "FieldHasNoEffect"

func hasNoEffect(field, instead string) Lack {
	return Lack{fieldHasNoEffect, fmt.Sprintf("%s has no effect: %s", field, instead)}
}

// notices tells of fields that are accepted and have no effect.
func notices(s Snapshot, set Set) []Lack {
	var told []Lack
	ignored := func(field, instead string) { told = append(told, hasNoEffect(field, instead)) }
	spec := s.EMQX.Spec
	if field := ignoredSelector(s); field != "" {
		ignored(field, "the Service selects the nodes that serve")
	}
	if spec.Config.Mode == v2beta1.ConfigModeReplace {
		ignored("spec.config.mode", "configuration reaches the nodes with the next revision")
	}
	for _, unknown := range s.Config.Unknown {
		told = append(told, Lack{"ConfigNotKnown", unknown + ": ports that it opens, or closes, must be named in spec.listenersServiceTemplate"})
	}
	if lack, _ := keysNotLoaded(s); !lack.None() {
		told = append(told, lack)
	}
	told = append(told, inPlaceNotices(s, set)...)
	if set.ConfigHash != s.ConfigHash {
		told = append(told, Lack{
			Reason:  "ConfigNotApplied",
			Message: "spec.config.data differs from what the nodes run with: this version does not apply configuration to running nodes; it reaches them with the next revision",
		})
	}
	return told
}
