package standin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"reflect"
	"syscall"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/api"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/broker"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// listeners opens the configured listeners on the node's address.
type listeners struct {
	broker  *broker.Broker
	address string
	secure  *tls.Config
}

// Open opens a listener; what cannot be served stays closed.
func (l *listeners) Open(want settings.Listener) error {
	port := settings.Port(want.Bind)
	if !want.Served() || l.broker.Listening(want.ID) || port == "" {
		return nil
	}
	err := l.broker.Listen(want.ID, want.Type, net.JoinHostPort(l.address, port), l.secure)
	if err == nil {
		return nil
	}
	reason := "einval"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		reason = "eaddrinuse"
	case errors.Is(err, syscall.EACCES):
		reason = "eacces"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		reason = "eaddrnotavail"
	}
	return errors.Join(&api.ListenError{ID: want.ID, Bind: want.Bind, Reason: reason}, err)
}

// Shut closes a listener and drops its clients.
func (l *listeners) Shut(id string) { l.broker.Unlisten(id) }

// Running reports whether a listener is open.
func (l *listeners) Running(id string) bool { return l.broker.Listening(id) }

// Apply goes from one configuration to another. A listener whose address and socket options stay as they are stays as it
// is, open or closed.
func (l *listeners) Apply(before, after settings.Tree) error {
	was := map[string]settings.Listener{}
	for _, old := range before.Listeners() {
		was[old.ID] = old
	}
	var opened []string
	for _, want := range after.Listeners() {
		old, known := was[want.ID]
		if known && old.Enable == want.Enable && old.Bind == want.Bind &&
			reflect.DeepEqual(old.Config["tcp_options"], want.Config["tcp_options"]) {
			delete(was, want.ID)
			continue
		}
		if known {
			l.Shut(want.ID)
			delete(was, want.ID)
		}
		if !want.Enable {
			continue
		}
		if err := l.Open(want); err != nil {
			for _, id := range opened {
				l.Shut(id)
			}
			return err
		}
		opened = append(opened, want.ID)
	}
	for id := range was {
		l.Shut(id)
	}
	return nil
}

// openAll opens what is enabled, at the node's start.
func (l *listeners) openAll(tree settings.Tree) error {
	for _, want := range tree.Listeners() {
		if !want.Enable {
			continue
		}
		if err := l.Open(want); err != nil {
			return err
		}
	}
	return nil
}

// selfSigned makes the certificate of ssl and wss listeners, as EMQX brings one along.
func selfSigned(address string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "emqx stand-in"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.ParseIP(address)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}, nil
}
