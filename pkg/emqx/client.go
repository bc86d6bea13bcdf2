package emqx

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// questionTimeout bounds a question that a node answers from its own memory: recorded at 20 ms.
	questionTimeout = 4 * time.Second
	// orderTimeout bounds an order: recorded at 10 ms, and at 44 s when it names a node that froze just before. It is
	// given up sooner, since the next one names nodes that answer.
	orderTimeout = 8 * time.Second
	// maxBodyBytes bounds the body of an answer.
	maxBodyBytes = 1 << 20
)

// Node is where an EMQX node is found.
type Node struct {
	// Name is the name of the node, such as emqx@emqx-core-5d8c-0.emqx-headless.default.svc.cluster.local.
	Name string
	// URL is the root of its HTTP API on its own address, such as http://10.1.2.3:18083.
	URL string
	// Trust is whom to trust there; the zero value for plain HTTP.
	Trust Trust
}

// Credentials are an API key of EMQX.
type Credentials struct {
	// Key is the name of the key.
	Key string
	// SystemKey is the name of the key for what changes the system, with the same password; empty when it is Key.
	SystemKey string
	// Secret is its password. It is never logged.
	Secret string
}

// String keeps the secret out of logs.
func (c Credentials) String() string { return c.Key + ":***" }

// GoString keeps the secret out of logs, too.
func (c Credentials) GoString() string { return c.String() }

// RequestObserver is told of every request that was made: the operation's name, the HTTP status (0 when there was no
// answer) and how long it took.
type RequestObserver func(operation string, status int, took time.Duration)

// Client asks EMQX nodes and gives them orders. It is safe for concurrent use.
type Client struct {
	http    *clients
	observe RequestObserver
}

// NewClient returns a client whose connections honour the proxy settings of the environment. A nil observer is none.
func NewClient(observe RequestObserver) *Client {
	if observe == nil {
		observe = func(string, int, time.Duration) {}
	}
	return &Client{observe: observe, http: &clients{plain: newHTTPClient(nil), all: map[Trust]*http.Client{}}}
}

// newHTTPClient returns a client for plain HTTP, or for HTTPS as the configuration says.
func newHTTPClient(config *tls.Config) *http.Client {
	dialer := &net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         dialer.DialContext,
			MaxIdleConnsPerHost: 6,               // The questions of a second.
			IdleConnTimeout:     2 * time.Second, // A node at rest is asked much later.
			TLSClientConfig:     config,
		},
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.close() }

// call is one request to a node.
type call struct {
	operation string
	method    string
	path      string
	body      any    // Sent as JSON; nil for none.
	text      string // Sent as it is; empty for none.
	system    bool   // It needs the scope system, where EMQX knows scopes.
	timeout   time.Duration
}

// do makes a request and decodes a JSON answer into out, unless out is nil. Every error names the operation and the
// node; answers other than 2xx are *APIError.
func (c *Client) do(ctx context.Context, node Node, credentials Credentials, call call, out any) error {
	err := c.roundTrip(ctx, node, credentials, call, out)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", call.operation, node.Name, err)
	}
	return nil
}

func (c *Client) roundTrip(ctx context.Context, node Node, credentials Credentials, call call, out any) error {
	ctx, cancel := context.WithTimeout(ctx, call.timeout)
	defer cancel()
	request, err := newRequest(ctx, node, credentials, call)
	if err != nil {
		return err
	}
	client, err := c.http.of(node.Trust)
	if err != nil {
		return err
	}
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		c.observe(call.operation, 0, time.Since(began))
		return transportError(err)
	}
	defer func() { _ = response.Body.Close() }() // Read to its end or given up: closing has nothing to say.
	body, err := readBounded(response.Body)
	c.observe(call.operation, response.StatusCode, time.Since(began))
	if err != nil {
		return transportError(err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return newAPIError(response, body)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return &APIError{Status: response.StatusCode, Message: "the answer is not the JSON that was expected: " + err.Error()}
	}
	return nil
}

func newRequest(ctx context.Context, node Node, credentials Credentials, call call) (*http.Request, error) {
	var body io.Reader
	if call.body != nil {
		data, err := json.Marshal(call.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	} else if call.text != "" {
		body = strings.NewReader(call.text)
	}
	request, err := http.NewRequestWithContext(ctx, call.method, node.URL+call.path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	switch {
	case call.text != "":
		request.Header.Set("Content-Type", "text/plain")
	case body != nil:
		request.Header.Set("Content-Type", "application/json")
	}
	key := credentials.Key
	if call.system {
		key = cmp.Or(credentials.SystemKey, key)
	}
	if key != "" {
		request.SetBasicAuth(key, credentials.Secret)
	}
	return request, nil
}

func readBounded(body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxBodyBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxBodyBytes {
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxBodyBytes)
	}
	return data, nil
}

// transportError keeps the cause and drops the URL, which the caller's wrapping says better.
func transportError(err error) error {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: no answer in time", ErrSilent)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if refused := untrusted(err); refused != nil {
		return refused
	}
	return fmt.Errorf("%w: %w", ErrSilent, err)
}

func isJSON(header http.Header) bool {
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	return err == nil && mediaType == "application/json"
}
