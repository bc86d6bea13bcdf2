package network_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

const patience = 20 * time.Second

// backend greets each connection with its name and then echoes until the other side ends.
type backend struct {
	listener net.Listener
	wg       sync.WaitGroup
}

func startBackend(t *testing.T, address, greeting string) *backend {
	t.Helper()
	listener, err := net.Listen("tcp4", address)
	require.NoError(t, err)
	b := &backend{listener: listener}
	b.wg.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() {
				defer func() { _ = connection.Close() }()
				if _, err := connection.Write([]byte(greeting + "\n")); err == nil {
					_, _ = io.Copy(connection, connection)
				}
			})
		}
	})
	t.Cleanup(func() { _ = listener.Close(); b.wg.Wait() })
	return b
}

func greeting(t *testing.T, connection net.Conn) string {
	t.Helper()
	require.NoError(t, connection.SetDeadline(time.Now().Add(patience)))
	var line strings.Builder
	one := make([]byte, 1)
	for {
		_, err := io.ReadFull(connection, one)
		require.NoError(t, err)
		if one[0] == '\n' {
			return line.String()
		}
		line.Write(one)
	}
}

// proxied runs a Proxier over a fake API with one Service, 10.98.77.1:18883, and returns the API.
func proxied(t *testing.T) *fake.Clientset {
	t.Helper()
	s := service("web", "10.98.77.1")
	s.Spec.Ports = []corev1.ServicePort{{Name: "mqtt", Port: 18883, Protocol: corev1.ProtocolTCP}}
	client := fake.NewClientset(s)
	factory := informers.NewSharedInformerFactory(client, 0)
	directory := network.NewDirectory(factory)
	proxier, err := network.NewProxier(factory, directory, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	done := make(chan struct{})
	go func() { defer close(done); proxier.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		factory.Shutdown()
	})
	return client
}

const serviceAddress = "127.98.77.1:18883"

// endpointsAre makes the addresses the ready endpoints of the Service, at port 18883.
func endpointsAre(t *testing.T, client *fake.Clientset, addresses ...string) {
	t.Helper()
	object := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: pointer("mqtt"), Port: pointer[int32](18883), Protocol: pointer(corev1.ProtocolTCP)}},
	}
	for _, address := range addresses {
		object.Endpoints = append(object.Endpoints, endpoint(address, "", pointer(true)))
	}
	slices := client.DiscoveryV1().EndpointSlices("default")
	_, err := slices.Update(t.Context(), object, metav1.UpdateOptions{})
	if err != nil {
		_, err = slices.Create(t.Context(), object, metav1.CreateOptions{})
	}
	require.NoError(t, err)
}

// dialUntil connects again and again until the greeting is the wanted one; empty means that connections are refused.
func dialUntil(t *testing.T, want string) net.Conn {
	t.Helper()
	var connection net.Conn
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp4", serviceAddress)
		if want == "" {
			if err == nil {
				_ = c.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		if err != nil {
			return false
		}
		if greeting(t, c) != want {
			_ = c.Close()
			return false
		}
		connection = c
		return true
	}, patience, 5*time.Millisecond, "a connection to %q", want)
	return connection
}

func TestProxierFollowsEndpointsAndLeavesConnectionsAlone(t *testing.T) {
	startBackend(t, "127.98.76.1:18883", "blue")
	startBackend(t, "127.98.76.2:18883", "green")
	client := proxied(t)

	dialUntil(t, "")
	endpointsAre(t, client, "10.98.76.1")
	old := dialUntil(t, "blue")
	defer func() { _ = old.Close() }()

	endpointsAre(t, client, "10.98.76.2")
	fresh := dialUntil(t, "green")
	defer func() { _ = fresh.Close() }()
	_, err := old.Write([]byte("still here\n"))
	require.NoError(t, err)
	require.Equal(t, "still here", greeting(t, old), "an established connection outlives its endpoint's readiness")

	endpointsAre(t, client)
	dialUntil(t, "")
	_, err = fresh.Write([]byte("and here\n"))
	require.NoError(t, err)
	require.Equal(t, "and here", greeting(t, fresh))

	require.NoError(t, client.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}))
	dialUntil(t, "")
}

func TestProxierSpreadsConnectionsOverEndpoints(t *testing.T) {
	startBackend(t, "127.98.76.1:18883", "one")
	startBackend(t, "127.98.76.2:18883", "two")
	client := proxied(t)
	endpointsAre(t, client, "10.98.76.1", "10.98.76.2")
	_ = dialUntil(t, "one").Close()
	_ = dialUntil(t, "two").Close()
}

func TestProxierPassesEndsAndResetsOn(t *testing.T) {
	startBackend(t, "127.98.76.1:18883", "echo")
	client := proxied(t)
	endpointsAre(t, client, "10.98.76.1")

	connection := dialUntil(t, "echo").(*net.TCPConn)
	_, err := connection.Write([]byte("last"))
	require.NoError(t, err)
	require.NoError(t, connection.CloseWrite())
	rest, err := io.ReadAll(connection)
	require.NoError(t, err)
	require.Equal(t, "last", string(rest), "what was sent before the end arrives, and the answer to it")

	// An endpoint that is listed and refuses: the client sees a reset.
	endpointsAre(t, client, "10.98.76.9")
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp4", serviceAddress)
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
		return errors.Is(err, syscall.ECONNRESET)
	}, patience, 5*time.Millisecond)
}

func TestProxierCarriesManyConnectionsAndMuchData(t *testing.T) {
	startBackend(t, "127.98.76.1:18883", "echo")
	client := proxied(t)
	endpointsAre(t, client, "10.98.76.1")
	_ = dialUntil(t, "echo").Close()

	const connections, size = 300, 200 << 10
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	var wg sync.WaitGroup
	failures := make(chan error, connections)
	for range connections {
		wg.Go(func() { failures <- roundTrip(payload) })
	}
	wg.Wait()
	close(failures)
	for err := range failures {
		require.NoError(t, err)
	}
}

func roundTrip(payload []byte) error {
	connection, err := net.Dial("tcp4", serviceAddress)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := connection.Write(payload)
		sent <- errors.Join(err, connection.(*net.TCPConn).CloseWrite())
	}()
	received, err := io.ReadAll(connection)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if string(received) != "echo\n"+string(payload) {
		return errors.New("the echo differs from what was sent")
	}
	return nil
}
