package emqx

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
)

// Trust says whom to trust behind an address that is asked over HTTPS. The zero value trusts the authorities of the system.
type Trust struct {
	// CA holds the certificates, in PEM, of the authorities that are trusted; empty for those of the system.
	CA string
	// ServerName is the name that the certificate must be for; empty for the host of the URL.
	ServerName string
	// Insecure trusts everybody.
	Insecure bool
	// Problem says why it is not known whom to trust; nobody is asked then. It is empty otherwise.
	Problem string
}

// clients are HTTP clients, one for each Trust: connections to whom one trusts are none to whom another does. There are as many as there
// were CAs of clusters whose API is asked over HTTPS.
type clients struct {
	plain *http.Client

	mu  sync.Mutex
	all map[Trust]*http.Client
}

// of is the client for a trust.
func (c *clients) of(trust Trust) (*http.Client, error) {
	if trust == (Trust{}) {
		return c.plain, nil
	}
	if trust.Problem != "" {
		return nil, fmt.Errorf("%w: %s", ErrUntrusted, trust.Problem)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.all[trust]; known != nil {
		return known, nil
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: trust.ServerName,
		InsecureSkipVerify: trust.Insecure, //nolint:gosec // Whoever wrote the specification has said so.
	}
	if trust.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(trust.CA)) {
			return nil, fmt.Errorf("%w: the authority that is to be trusted is no certificate", ErrUntrusted)
		}
	}
	client := newHTTPClient(config)
	c.all[trust] = client
	return client, nil
}

func (c *clients) close() {
	c.plain.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.all {
		client.CloseIdleConnections()
	}
}

// untrusted makes of a certificate that was refused an error whose words stay the same while the cause does; nil of other errors.
func untrusted(err error) error {
	var refused *tls.CertificateVerificationError
	if !errors.As(err, &refused) {
		return nil
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return fmt.Errorf("%w: it has expired, or is not valid yet", ErrUntrusted)
	}
	return fmt.Errorf("%w: %w", ErrUntrusted, refused.Err)
}
