package resources

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

const configKey = "emqx.conf"

// NodeCookieKey is the entry of the cookie's Secret.
const NodeCookieKey = "node_cookie"

// ConfigMap holds emqx.conf of a revision. It is written before the revision's set is made, and not after.
func ConfigMap(emqx *v2beta1.EMQX, name, revision string) *applycore.ConfigMapApplyConfiguration {
	return applycore.ConfigMap(name, emqx.Namespace).
		WithLabels(with(emqx.Labels, with(Labels(emqx), map[string]string{v2beta1.LabelPodTemplateHash: revision}))).
		WithOwnerReferences(ApplyOwnerReference(emqx)).
		WithData(map[string]string{configKey: ConfigText(emqx.Spec.Config.Data)})
}

// NodeCookieSecret holds the cookie that the nodes of a cluster share.
func NodeCookieSecret(emqx *v2beta1.EMQX, cookie string) *corev1.Secret {
	return secret(emqx, emqx.NodeCookieSecretName(), NodeCookieKey, cookie)
}

// AnnotationCookieDigest keeps, on a set, what tells the cookie that it was made with from another.
const AnnotationCookieDigest = "apps.emqx.io/cookie-digest"

// CookieDigest tells a cluster's cookie from another. It is so short that a guess can be ruled out by it and never confirmed,
// and differs from cluster to cluster, so that nobody sees who shares one.
func CookieDigest(emqx *v2beta1.EMQX, cookie []byte) string {
	mac := hmac.New(sha256.New, []byte(emqx.Namespace+"/"+emqx.Name))
	mac.Write(cookie)
	return hex.EncodeToString(mac.Sum(nil)[:2])
}

func secret(emqx *v2beta1.EMQX, name, key, value string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: emqx.Namespace, Labels: with(emqx.Labels, Labels(emqx)),
			OwnerReferences: []metav1.OwnerReference{*ownerReference(emqx)},
		},
		Data: map[string][]byte{key: []byte(value)},
	}
}
