package machine

import (
	"fmt"
	"reflect"

	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// NameOf is the name of an action's kind, for metrics and logs.
func NameOf(action Action) string { return reflect.TypeOf(action).Name() }

// Describe says what an action does to which object, for errors.
func Describe(s Snapshot, action Action) string {
	name := func(object string) string { return s.EMQX.Namespace + "/" + object }
	switch a := action.(type) {
	case CreateCookieSecret:
		return "create Secret " + name(s.EMQX.NodeCookieSecretName())
	case WriteKeysSecret:
		return "write Secret " + name(s.EMQX.BootstrapAPIKeySecretName())
	case ApplyConfigMap:
		return "apply ConfigMap " + name(a.Name)
	case DeleteConfigMap:
		return "delete ConfigMap " + name(a.Name)
	case ApplyHeadlessService:
		return "apply Service " + name(s.EMQX.HeadlessServiceName())
	case InheritService:
		return "take over Service " + name(resources.ServiceName(s.EMQX, a.Kind))
	case ApplyService:
		return fmt.Sprintf("point Service %s to revision %s", name(resources.ServiceName(s.EMQX, a.Kind)), a.Revision)
	case DeleteService:
		return "delete Service " + name(resources.ServiceName(s.EMQX, a.Kind))
	case ApplyBudget, InheritBudget, DeleteBudget:
		return describeOfBudget(s.EMQX.Namespace+"/"+s.EMQX.CoreBudgetName(), action)
	case FinalizeRebalance:
		return "write the finalizers of Rebalance " + name(a.Name)
	case TellRebalance:
		return "write the status of Rebalance " + name(a.Name)
	case DeleteClaim:
		return "delete PersistentVolumeClaim " + name(a.Name)
	case BindClaim:
		if a.Bind {
			return fmt.Sprintf("have PersistentVolumeClaim %s go with the resource", name(a.Name))
		}
		return fmt.Sprintf("have PersistentVolumeClaim %s outlive the resource", name(a.Name))
	case DeletePod, LetGo, SetGate, SetSiteCondition:
		return describeOfPod(s, action)
	case CreateSet, ReplaceTemplate, ScaleSet, RelabelSet, NoteCookie, AdoptSet, MarkServing, DeleteSet:
		return describeOfSet(s, action)
	}
	return NameOf(action)
}

// describeOfPod is Describe for the actions on pods.
func describeOfPod(s Snapshot, action Action) string {
	name := func(object string) string { return s.EMQX.Namespace + "/" + object }
	switch a := action.(type) { //nolint:gochecksumtype // The others are in Describe.
	case DeletePod:
		return "delete pod " + name(a.Name)
	case LetGo:
		if a.LetGo {
			return "let pod " + name(a.Name) + " be evicted"
		}
		return "take the marks of a drain off pod " + name(a.Name)
	case SetGate:
		return "write the readiness gate of pod " + name(a.Pod)
	case SetSiteCondition:
		return "tell on pod " + name(a.Pod) + " whether it holds replicas"
	}
	return NameOf(action)
}

// describeOfBudget is Describe for the actions on the budget of the given name.
func describeOfBudget(name string, action Action) string {
	switch a := action.(type) { //nolint:gochecksumtype // The others are in Describe.
	case ApplyBudget:
		if a.Revision == "" {
			return "have PodDisruptionBudget " + name + " refuse evictions"
		}
		return "have PodDisruptionBudget " + name + " protect revision " + a.Revision
	case InheritBudget:
		return "take over PodDisruptionBudget " + name
	case DeleteBudget:
		return "delete PodDisruptionBudget " + name
	}
	return NameOf(action)
}

// describeOfSet is Describe for the actions on sets.
func describeOfSet(s Snapshot, action Action) string {
	name := func(object string) string { return "StatefulSet " + s.EMQX.Namespace + "/" + object }
	switch a := action.(type) { //nolint:gochecksumtype // The others are in Describe.
	case CreateSet:
		return "create " + name(s.EMQX.CoreSetName(a.Set.Revision))
	case ReplaceTemplate:
		return "give " + name(a.Name) + " another template"
	case ScaleSet:
		return fmt.Sprintf("scale %s to %d", name(a.Name), a.Replicas)
	case RelabelSet:
		return "give " + name(a.Name) + " its labels and its owner back"
	case NoteCookie:
		return "note the cookie on " + name(a.Name)
	case AdoptSet:
		return "adopt " + name(a.Name)
	case MarkServing:
		return "mark " + name(a.Name) + " as serving"
	case DeleteSet:
		return "delete " + name(a.Name)
	}
	return NameOf(action)
}
