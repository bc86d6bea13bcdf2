package upgrade

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/csaupgrade"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// formerManager is the field manager of emqx-operator 2.x, after its binary.
const formerManager = "manager"

// inheritance is a patch that hands the fields which emqx-operator 2.x owns over to this operator, so that applying can
// take away what is not wanted any more: a port of that owner would stay for ever, and keep its name taken. It is nil when
// there are none.
func inheritance(object runtime.Object) ([]byte, error) {
	return csaupgrade.UpgradeManagedFieldsPatch(object, sets.New(formerManager), FieldManager)
}

// renewal is a patch that begins a status anew which another operator wrote: of its conditions and nodes, applying would
// leave standing what this operator does not write itself. Only what that operator called its revisions is kept. It is nil
// for a status that this operator has written, and for none.
func renewal(emqx *v2beta1.EMQX) ([]byte, error) {
	if emqx.Status.ObservedGeneration > 0 || len(emqx.Status.Conditions) == 0 {
		return nil, nil
	}
	kept := v2beta1.EMQXStatus{CoreNodesStatus: v2beta1.EMQXNodesStatus{
		CurrentRevision: emqx.Status.CoreNodesStatus.CurrentRevision, UpdateRevision: emqx.Status.CoreNodesStatus.UpdateRevision,
	}}
	return replacement(emqx, kept)
}

// replacement is a patch that replaces a status as a whole. The resource version in it has the API server refuse it when the
// object has changed since.
func replacement(emqx *v2beta1.EMQX, status v2beta1.EMQXStatus) ([]byte, error) {
	return json.Marshal([]resources.JSONPatch{resources.Put("/status", status), resources.Replace("/metadata/resourceVersion", emqx.ResourceVersion)})
}
