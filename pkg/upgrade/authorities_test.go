package upgrade

import (
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// TestAuthorities: the CA is read once for each version of its Secret, and what was read goes on to be trusted.
func TestAuthorities(t *testing.T) {
	l, now := newLocker(t), time.Unix(1000, 0)
	a := newAuthorities(l.kube)
	look := func(now time.Time) emqx.Trust {
		a.read(t.Context(), l.caches, l.emqx, now)
		return a.of(l.emqx)
	}
	require.Equal(t, emqx.Trust{ServerName: "e-dashboard.n.svc"}, look(now), "who says nothing trusts the authorities of the system")
	l.emqx.Spec.APITLS = &v2beta1.APITLS{InsecureSkipVerify: true}
	require.Equal(t, emqx.Trust{Insecure: true}, look(now))
	l.emqx.Spec.APITLS = &v2beta1.APITLS{ServerName: "emqx.example.com"}
	require.Equal(t, emqx.Trust{ServerName: "emqx.example.com"}, look(now))
	require.Zero(t, l.reads)

	l.emqx.Spec.APITLS = &v2beta1.APITLS{CASecretName: "ca"}
	require.Contains(t, a.of(l.emqx).Problem, "Secret n/ca with the CA has not been read yet")
	require.Contains(t, look(now).Problem, "spec.apiTLS.caSecretName: read Secret n/ca")
	reads := l.reads
	require.NotEmpty(t, look(now).Problem)
	require.Equal(t, reads, l.reads, "what cannot be read is left alone for a while")

	server := httptest.NewTLSServer(nil)
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	l.put("ca", map[string][]byte{"ca.crt": []byte("nonsense")})
	require.Contains(t, look(now).Problem, "Secret n/ca has no certificate in its entry ca.crt")
	l.put("ca", map[string][]byte{"ca.crt": ca})
	want := emqx.Trust{CA: string(ca), ServerName: "e-dashboard.n.svc"}
	require.Equal(t, want, look(now))
	reads = l.reads
	require.Equal(t, want, look(now))
	require.Equal(t, reads, l.reads)
	l.put("ca", map[string][]byte{"ca.crt": []byte("nonsense")})
	require.Equal(t, want, look(now), "the last that could be read")
	l.refused = errors.New("refused")
	require.Equal(t, want, look(now.Add(readingRetry)))
}
