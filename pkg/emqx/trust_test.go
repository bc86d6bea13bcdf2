package emqx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// selfSigned makes a certificate for a name, which is an authority, too, and that in PEM.
func selfSigned(t *testing.T, name string, until time.Time) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Unix(0, 0), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestTrust: a key is sent over HTTPS only to whom is trusted, and what is wrong is said in words that stay the same.
func TestTrust(t *testing.T) {
	const name = "emqx-ee-dashboard.default.svc"
	certificate, ca := selfSigned(t, name, time.Now().Add(time.Hour))
	expired, expiredCA := selfSigned(t, name, time.Now().Add(-time.Hour))
	_, otherCA := selfSigned(t, name, time.Now().Add(time.Hour))
	for _, test := range []struct {
		reason      string
		certificate tls.Certificate
		trust       Trust
		want        string
	}{
		{"the user's CA", certificate, Trust{CA: ca, ServerName: name}, ""},
		{"declared insecure", certificate, Trust{Insecure: true}, ""},
		{"nothing is said, and nobody vouches for it", certificate, Trust{ServerName: name}, "the certificate of the node's API is not trusted: x509: "},
		{"another CA", certificate, Trust{CA: otherCA, ServerName: name}, "not trusted: x509: certificate signed by unknown authority"},
		{"another name", certificate, Trust{CA: ca, ServerName: "else"}, "not trusted: x509: certificate is valid for " + name + ", not else"},
		{"over", expired, Trust{CA: expiredCA, ServerName: name}, "not trusted: it has expired, or is not valid yet"},
		{"the CA is not known", certificate, Trust{Problem: "there is no Secret"}, "not trusted: there is no Secret"},
		{"the CA is none", certificate, Trust{CA: "x"}, "is no certificate"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			asked := 0
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked++
				w.WriteHeader(http.StatusNoContent)
			}))
			server.TLS = &tls.Config{Certificates: []tls.Certificate{test.certificate}}
			server.Config.ErrorLog = nil
			server.StartTLS()
			defer server.Close()
			client := NewClient(nil)
			defer client.Close()
			node := Node{Name: "n", URL: server.URL, Trust: test.trust}
			for range 2 {
				err := client.Stop(t.Context(), node, Credentials{Key: "k", Secret: "top-secret"})
				if test.want == "" {
					require.NoError(t, err)
					continue
				}
				require.ErrorIs(t, err, ErrUntrusted)
				require.NotErrorIs(t, err, ErrSilent, "it does answer")
				require.ErrorContains(t, err, test.want)
				require.NotContains(t, err.Error(), "top-secret")
			}
			if test.want != "" {
				require.Zero(t, asked)
			}
		})
	}
}
