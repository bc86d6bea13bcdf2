package controlplane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// certificateLifetime is longer than any local cluster lives.
const certificateLifetime = 10 * 365 * 24 * time.Hour

// authority signs the cluster's certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
	now         time.Time
}

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of the certificate authority: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "local-cluster-ca"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certificateLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority back: %w", err)
	}
	return &authority{certificate: certificate, key: key, pem: certificatePEM(der), now: now}, nil
}

// keyPair is a certificate with its key, both as PEM.
type keyPair struct{ certificate, key []byte }

// issue makes a certificate for use by a server and a client alike.
func (a *authority) issue(subject pkix.Name, names []string, addresses []netip.Addr) (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("make the key of %s: %w", subject.CommonName, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return keyPair{}, fmt.Errorf("make the serial number of %s: %w", subject.CommonName, err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    a.now.Add(-time.Hour),
		NotAfter:     a.now.Add(certificateLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     names,
	}
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return keyPair{}, fmt.Errorf("sign the certificate of %s: %w", subject.CommonName, err)
	}
	encoded, err := keyPEM(key)
	if err != nil {
		return keyPair{}, err
	}
	return keyPair{certificate: certificatePEM(der), key: encoded}, nil
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// identity is a client or server certificate the cluster needs.
type identity struct {
	file      string
	subject   pkix.Name
	names     []string
	addresses []netip.Addr
}

func identities(s *state.State) []identity {
	control := s.ControlAddress()
	masters := []string{"system:masters"}
	ids := []identity{
		{
			file: "apiserver", subject: pkix.Name{CommonName: "kube-apiserver"},
			names: []string{
				"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc." + network.Domain,
			},
			addresses: []netip.Addr{
				control, s.Plan().Control(), s.Plan().KubernetesService(), netip.AddrFrom4([4]byte{127, 0, 0, 1}),
			},
		},
		{file: "apiserver-kubelet-client", subject: pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: masters}},
		{file: "agent", subject: pkix.Name{CommonName: "local-node-agent", Organization: masters}, names: []string{state.NodeName}, addresses: []netip.Addr{control}},
		{file: "admin", subject: pkix.Name{CommonName: "local-admin", Organization: masters}},
		{file: "controller-manager", subject: pkix.Name{CommonName: "system:kube-controller-manager", Organization: masters}},
		{file: "scheduler", subject: pkix.Name{CommonName: "system:kube-scheduler"}},
	}
	for _, node := range s.RealNodes {
		ids = append(ids, identity{
			file:    node.Name,
			subject: pkix.Name{CommonName: "system:node:" + node.Name, Organization: []string{"system:nodes"}},
			names:   []string{node.Name}, addresses: []netip.Addr{node.Address},
		})
	}
	if len(s.RealNodes) > 0 {
		ids = append(ids, identity{file: KubeProxy, subject: pkix.Name{CommonName: "system:kube-proxy"}})
	}
	return ids
}

// writePKI makes new keys and certificates and returns the kubeconfigs' material by identity.
func writePKI(dir state.Dir, s *state.State, now time.Time) (*authority, map[string]keyPair, error) {
	ca, err := newAuthority(now)
	if err != nil {
		return nil, nil, err
	}
	files := map[string][]byte{"ca.crt": ca.pem}
	pairs := map[string]keyPair{}
	for _, id := range identities(s) {
		pair, err := ca.issue(id.subject, id.names, id.addresses)
		if err != nil {
			return nil, nil, err
		}
		pairs[id.file] = pair
		files[id.file+".crt"], files[id.file+".key"] = pair.certificate, pair.key
	}
	signing, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the key for service-account tokens: %w", err)
	}
	if files["service-account.key"], err = keyPEM(signing); err != nil {
		return nil, nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(signing.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key for service-account tokens: %w", err)
	}
	files["service-account.pub"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	for name, content := range files {
		if err := os.WriteFile(dir.PKI(name), content, 0o600); err != nil {
			return nil, nil, fmt.Errorf("write keys: %w", err)
		}
	}
	return ca, pairs, nil
}
