package upgrade

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// authorities keeps the certificates of the authorities that are trusted for each cluster, in PEM. The Secret that has them is read
// once for each version of it. What was read last goes on to be trusted while the Secret is not there or cannot be read.
type authorities struct {
	kube         kubernetes.Interface
	certificates readings[secretVersion, authority]
}

// authority is what was read of one version of a Secret.
type authority struct {
	// ca is the certificates, in PEM; empty when none could be read, and problem says why.
	ca, problem string
}

func newAuthorities(kube kubernetes.Interface) *authorities { return &authorities{kube: kube} }

// of is whom to trust behind the addresses of a cluster. It asks nobody.
func (a *authorities) of(resource *v2beta1.EMQX) emqx.Trust {
	trust := emqx.Trust{ServerName: resources.ServiceName(resource, resources.Dashboard) + "." + resource.Namespace + ".svc"}
	spec := resource.Spec.APITLS
	if spec == nil {
		return trust
	}
	if spec.InsecureSkipVerify {
		return emqx.Trust{Insecure: true}
	}
	if spec.ServerName != "" {
		trust.ServerName = spec.ServerName
	}
	if spec.CASecretName == "" {
		return trust
	}
	last := a.certificates.last(key(resource))
	switch {
	case last.source.Name != spec.CASecretName:
		return emqx.Trust{Problem: fmt.Sprintf("Secret %s/%s with the CA has not been read yet", resource.Namespace, spec.CASecretName)}
	case last.value.ca == "":
		return emqx.Trust{Problem: last.value.problem}
	}
	trust.CA = last.value.ca
	return trust
}

// read has the certificates of a cluster's authorities be known, once for each version of their Secret.
func (a *authorities) read(ctx context.Context, caches *informers.Caches, resource *v2beta1.EMQX, now time.Time) {
	if resource.Spec.APITLS == nil || resource.Spec.APITLS.CASecretName == "" {
		return
	}
	version := versionOf(caches, resource.Namespace, resource.Spec.APITLS.CASecretName)
	if err := a.certificates.refresh(key(resource), version, now, func(last reading[secretVersion, authority]) (authority, error) {
		ca, err := a.fetch(ctx, resource.Namespace, version.Name)
		if err == nil {
			return authority{ca: ca}, nil
		}
		kept := authority{problem: err.Error()}
		if last.source.Name == version.Name {
			kept.ca = last.value.ca
		}
		return kept, err
	}); err != nil {
		klog.FromContext(ctx).Error(err, "The authorities cannot be read")
	}
}

// fetch reads the certificates of a Secret, in PEM.
func (a *authorities) fetch(ctx context.Context, namespace, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	secret, err := a.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("spec.apiTLS.caSecretName: read Secret %s/%s: %w", namespace, name, err)
	}
	text := secret.Data[corev1.ServiceAccountRootCAKey]
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return "", fmt.Errorf("spec.apiTLS.caSecretName: Secret %s/%s has no certificate in its entry %s", namespace, name, corev1.ServiceAccountRootCAKey)
	}
	return string(text), nil
}

func (a *authorities) forget(name cache.ObjectName) { a.certificates.forget(name) }
