package upgrade

import (
	"encoding/json"
	"fmt"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	applyv2beta1 "github.com/emqx-bg/emqx-bg-operator/pkg/generated/applyconfiguration/apps/v2beta1"
)

// applyStatus is the apply configuration of a status.
func applyStatus(emqx *v2beta1.EMQX, status v2beta1.EMQXStatus) (*applyv2beta1.EMQXApplyConfiguration, error) {
	data, err := json.Marshal(status)
	if err != nil {
		return nil, fmt.Errorf("write the status of %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	apply := applyv2beta1.EMQXStatus()
	if err := json.Unmarshal(data, apply); err != nil {
		return nil, fmt.Errorf("write the status of %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	return applyv2beta1.EMQX(emqx.Name, emqx.Namespace).WithUID(emqx.UID).WithStatus(apply), nil
}
