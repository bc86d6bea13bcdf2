package resources

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// EMQXContainer is the name of the container that EMQX runs in.
const EMQXContainer = "emqx"

// CoreSet describes the set of a revision's core nodes.
type CoreSet struct {
	// Revision is its name's hash.
	Revision string
	// Template is the revision that its template is written for: the set's own, but for one whose node is replaced in place.
	Template string
	// Replicas is the number of nodes it is created with.
	Replicas int32
	// Ports are those of the configuration it is created with.
	Ports Ports
	// ConfigHash identifies that configuration.
	ConfigHash string
	// Intent is what the revision was hashed from, kept to tell later what changed.
	Intent string
	// ConfigMap is the name of the ConfigMap that its pods read emqx.conf from.
	ConfigMap string
	// CookieDigest tells the cookie that its nodes start with from another; see CookieDigest.
	CookieDigest string
}

// AnnotationIntent keeps, on a set, what its revision was hashed from.
const AnnotationIntent = "apps.emqx.io/revision-intent"

// notes are what the operator remembers on a set of what it was made with.
func (set CoreSet) notes() (map[string]string, error) {
	ports, err := json.Marshal(set.Ports)
	if err != nil {
		return nil, fmt.Errorf("note the ports of revision %s: %w", set.Revision, err)
	}
	return map[string]string{
		v2beta1.AnnotationServicePorts: string(ports),
		v2beta1.AnnotationConfigHash:   set.ConfigHash,
		v2beta1.AnnotationRevision:     set.Template,
		AnnotationIntent:               set.Intent,
		AnnotationCookieDigest:         set.CookieDigest,
	}, nil
}

// StatefulSet is the set of a revision's core nodes as it is created. Its template is never written again, so that a
// new version of the operator, which may render it otherwise, restarts nobody: but see TemplatePatch.
func StatefulSet(emqx *v2beta1.EMQX, set CoreSet) (*appsv1.StatefulSet, error) {
	notes, err := set.notes()
	if err != nil {
		return nil, err
	}
	labels := CoreRevisionLabels(emqx, set.Revision)
	user := emqx.Spec.CoreTemplate.ObjectMeta
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: emqx.CoreSetName(set.Revision), Namespace: emqx.Namespace,
			Labels: with(user.Labels, labels),
			Annotations: with(user.Annotations, with(notes, map[string]string{
				v2beta1.AnnotationNodeCount: strconv.Itoa(int(set.Replicas)),
				v2beta1.AnnotationReplicas:  strconv.Itoa(int(set.Replicas)),
			})),
			OwnerReferences: []metav1.OwnerReference{*ownerReference(emqx)},
		},
		Spec: appsv1.StatefulSetSpec{
			Replicas:             &set.Replicas,
			ServiceName:          emqx.HeadlessServiceName(),
			PodManagementPolicy:  appsv1.ParallelPodManagement,
			UpdateStrategy:       appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType},
			Selector:             &metav1.LabelSelector{MatchLabels: labels},
			Template:             podTemplate(emqx, set),
			VolumeClaimTemplates: claimTemplates(emqx, labels),
		},
	}, nil
}

func podTemplate(emqx *v2beta1.EMQX, set CoreSet) corev1.PodTemplateSpec {
	user := emqx.Spec.CoreTemplate.ObjectMeta
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      with(user.Labels, CoreRevisionLabels(emqx, set.Revision)),
			Annotations: with(user.Annotations, map[string]string{v2beta1.AnnotationRevision: set.Template}),
		},
		Spec: corePodSpec(emqx, set),
	}
}

// TemplatePatch gives a set, which must be as it was seen, the template of another revision, and the notes of that.
func TemplatePatch(emqx *v2beta1.EMQX, uid types.UID, resourceVersion string, set CoreSet) ([]byte, error) {
	notes, err := set.notes()
	if err != nil {
		return nil, err
	}
	operations := []JSONPatch{
		Replace("/metadata/uid", uid),
		Replace("/metadata/resourceVersion", resourceVersion),
		Replace("/spec/template", podTemplate(emqx, set)),
	}
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		operations = append(operations, JSONPatch{"add", "/metadata/annotations/" + strings.ReplaceAll(name, "/", "~1"), notes[name]})
	}
	return json.Marshal(operations)
}

func corePodSpec(emqx *v2beta1.EMQX, set CoreSet) corev1.PodSpec {
	spec := emqx.Spec.CoreTemplate.Spec
	return corev1.PodSpec{
		ReadinessGates:            []corev1.PodReadinessGate{{ConditionType: v2beta1.ConditionOnServing}},
		ImagePullSecrets:          emqx.Spec.ImagePullSecrets,
		ServiceAccountName:        emqx.Spec.ServiceAccountName,
		SecurityContext:           spec.PodSecurityContext,
		Affinity:                  spec.Affinity,
		Tolerations:               slices.Concat(spec.Tolerations, spec.ToleRations),
		TopologySpreadConstraints: spec.TopologySpreadConstraints,
		NodeSelector:              spec.NodeSelector,
		NodeName:                  spec.NodeName,
		InitContainers:            spec.InitContainers,
		Containers:                append([]corev1.Container{coreContainer(emqx, set.Ports)}, spec.ExtraContainers...),
		Volumes:                   coreVolumes(emqx, set.ConfigMap),
	}
}

func coreContainer(emqx *v2beta1.EMQX, ports Ports) corev1.Container {
	spec := emqx.Spec.CoreTemplate.Spec
	return corev1.Container{
		Name:            EMQXContainer,
		Image:           emqx.Spec.Image,
		ImagePullPolicy: emqx.Spec.ImagePullPolicy,
		Command:         spec.Command,
		Args:            spec.Args,
		Ports:           containerPorts(spec.Ports, ports.Dashboard),
		Env:             slices.Concat(coreEnv(emqx, ports.Dashboard), spec.Env),
		EnvFrom:         spec.EnvFrom,
		Resources:       spec.Resources,
		SecurityContext: spec.ContainerSecurityContext,
		LivenessProbe:   spec.LivenessProbe,
		ReadinessProbe:  spec.ReadinessProbe,
		StartupProbe:    spec.StartupProbe,
		Lifecycle:       spec.Lifecycle,
		VolumeMounts:    slices.Concat(coreMounts(emqx), spec.ExtraVolumeMounts),
		// The last lines of a crash are what the upgrade reports as the reason why it is stalled.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

func containerPorts(user []corev1.ContainerPort, dashboard []Port) []corev1.ContainerPort {
	ports := slices.Clone(user)
	for _, port := range dashboard {
		exists := slices.ContainsFunc(user, func(p corev1.ContainerPort) bool { return p.Name == port.Name })
		if !exists {
			ports = append(ports, corev1.ContainerPort{Name: port.Name, ContainerPort: port.Number, Protocol: port.Protocol})
		}
	}
	return ports
}

// coreEnv is the environment that makes a node part of its cluster. The names are those of EMQX's configuration.
func coreEnv(emqx *v2beta1.EMQX, dashboard []Port) []corev1.EnvVar {
	env := []corev1.EnvVar{
		{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
		{Name: "EMQX_CLUSTER__DISCOVERY_STRATEGY", Value: "dns"},
		{Name: "EMQX_CLUSTER__DNS__RECORD_TYPE", Value: "srv"},
		{Name: NodeDomainEnv, Value: emqx.NodeDomain()},
		{Name: "EMQX_HOST", Value: "$(POD_NAME).$(EMQX_CLUSTER__DNS__NAME)"},
		{Name: "EMQX_NODE__DATA_DIR", Value: "data"},
		{Name: "EMQX_NODE__ROLE", Value: v2beta1.RoleCore},
		{Name: "EMQX_NODE__COOKIE", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: emqx.NodeCookieSecretName()}, Key: NodeCookieKey,
		}}},
		// The value is HOCON: a path needs its quotes.
		{Name: "EMQX_API_KEY__BOOTSTRAP_FILE", Value: `"` + APIKeysFile + `"`},
	}
	http := int32(0)
	for _, port := range dashboard {
		switch port.Name {
		case dashboardPortName:
			http = port.Number
		case dashboardHTTPSPortName:
			env = append(env, corev1.EnvVar{Name: "EMQX_DASHBOARD__LISTENERS__HTTPS__BIND", Value: strconv.Itoa(int(port.Number))})
		}
	}
	return append(env, corev1.EnvVar{Name: "EMQX_DASHBOARD__LISTENERS__HTTP__BIND", Value: strconv.Itoa(int(http))})
}

// NodeDomainEnv is the variable of EMQX's container that names the DNS domain of the set's pods.
const NodeDomainEnv = "EMQX_CLUSTER__DNS__NAME"

// APIKeysFile is where EMQX reads API keys. Its directory is mounted, not the file alone: what is written to the Secret comes into pods
// that run, and EMQX can be told to read it.
const APIKeysFile = apiKeysDir + "/" + BootstrapAPIKeyKey

const apiKeysDir = "/opt/emqx/etc/api-keys" //nolint:gosec // A path.

const (
	// APIKeysVolume is the volume of the Secret with the API keys. emqx-operator 2.x mounts one of another name, the file alone.
	APIKeysVolume = "api-keys"
	// BootstrapConfigVolume is the volume of the ConfigMap with emqx.conf.
	BootstrapConfigVolume = "bootstrap-config"
)

func coreMounts(emqx *v2beta1.EMQX) []corev1.VolumeMount {
	return []corev1.VolumeMount{
		{Name: APIKeysVolume, MountPath: apiKeysDir, ReadOnly: true},
		{Name: BootstrapConfigVolume, MountPath: "/opt/emqx/etc/emqx.conf", SubPath: configKey, ReadOnly: true},
		{Name: emqx.Name + "-core-log", MountPath: "/opt/emqx/log"},
		{Name: emqx.CoreDataVolume(), MountPath: "/opt/emqx/data"},
	}
}

func coreVolumes(emqx *v2beta1.EMQX, configMap string) []corev1.Volume {
	emptyDir := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	volumes := []corev1.Volume{
		{Name: APIKeysVolume, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: emqx.BootstrapAPIKeySecretName(), Items: []corev1.KeyToPath{{Key: BootstrapAPIKeyKey, Path: BootstrapAPIKeyKey}},
		}}},
		{Name: BootstrapConfigVolume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: configMap},
		}}},
		{Name: emqx.Name + "-core-log", VolumeSource: emptyDir},
	}
	if VolumeClaimOf(emqx) == nil {
		volumes = append(volumes, corev1.Volume{Name: emqx.CoreDataVolume(), VolumeSource: emptyDir})
	}
	return append(volumes, emqx.Spec.CoreTemplate.Spec.ExtraVolumes...)
}

// VolumeClaimOf is the claim that a resource asks for a core node's data; nil when it asks for none.
func VolumeClaimOf(emqx *v2beta1.EMQX) *corev1.PersistentVolumeClaimSpec {
	asked := &emqx.Spec.CoreTemplate.Spec.VolumeClaimTemplates
	if equality.Semantic.DeepEqual(*asked, corev1.PersistentVolumeClaimSpec{}) {
		return nil
	}
	return asked
}

// claimTemplates are the volumes that each pod of a set has of its own. What becomes of claims is the operator's to say, not
// the set's: its policy is Kubernetes' default, to retain them.
func claimTemplates(emqx *v2beta1.EMQX, labels map[string]string) []corev1.PersistentVolumeClaim {
	asked := VolumeClaimOf(emqx)
	if asked == nil {
		return nil
	}
	claim := corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: emqx.CoreDataVolume(), Labels: labels}, Spec: *asked.DeepCopy()}
	if claim.Spec.VolumeMode == nil {
		mode := corev1.PersistentVolumeFilesystem
		claim.Spec.VolumeMode = &mode
	}
	return []corev1.PersistentVolumeClaim{claim}
}
