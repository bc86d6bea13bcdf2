package replay

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const maxAnswerBytes = 16 << 20

// reply is what a node answered.
type reply struct {
	status int
	header http.Header
	raw    []byte
	body   any // decoded when it is JSON, otherwise text
	took   time.Duration
}

// request is what is sent.
type request struct {
	method, host, path string
	auth               string // as recorded: "none" or "Basic key:secret"
	header             map[string]string
	body               []byte
	hasBody            bool
}

func (r *Runner) send(ctx context.Context, q request) (reply, error) {
	var body io.Reader
	if q.hasBody {
		body = bytes.NewReader(q.body)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, "http://"+q.host+q.path, body)
	if err != nil {
		return reply{}, fmt.Errorf("make the request: %w", err)
	}
	for name, value := range q.header {
		req.Header.Set(name, value)
	}
	if scheme, credentials, found := strings.Cut(q.auth, " "); found {
		req.Header.Set("Authorization", scheme+" "+base64.StdEncoding.EncodeToString([]byte(credentials)))
	}
	req.Close = true
	begun := time.Now()
	resp, err := r.http.Do(req)
	if err != nil {
		return reply{took: time.Since(begun)}, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	got := reply{status: resp.StatusCode, header: resp.Header, raw: raw, took: time.Since(begun)}
	if err != nil {
		return got, fmt.Errorf("read the answer: %w", err)
	}
	if json.Unmarshal(raw, &got.body) != nil {
		got.body = string(raw)
	}
	return got, nil
}

// api asks for a path with the key that may do everything.
func (r *Runner) api(ctx context.Context, method string, node int, path string, body any) (reply, error) {
	q := request{
		method: method, host: r.targets[node] + ":18083", path: r.translate.text(path), auth: "Basic opkey:opsecret",
		header: map[string]string{"Accept": "application/json"},
	}
	if body != nil {
		data, err := json.Marshal(r.translate.value(body))
		if err != nil {
			return reply{}, fmt.Errorf("encode the request: %w", err)
		}
		q.body, q.hasBody = data, true
		q.header["Content-Type"] = "application/json"
	}
	return r.send(ctx, q)
}

// exchange replays one recorded request and compares the answer.
func (r *Runner) exchange(ctx context.Context, rec *recording) string {
	got, err := r.sendRecorded(ctx, rec)
	if rec.Response.Error != "" {
		expected := r.scaled(rec.Ms / 1000).Seconds()
		switch off := got.took.Seconds() - expected; {
		case !errors.Is(err, io.EOF):
			return fmt.Sprintf("recorded a connection that is closed, got %d, %v", got.status, err)
		case off > faultTolerance*expected+faultSlack || off < -faultTolerance*expected-faultSlack:
			return fmt.Sprintf("closed after %s, recorded %.0f s (%.1f s here)", got.took.Round(time.Millisecond), rec.Ms/1000, expected)
		}
		return ""
	}
	if err != nil {
		return "no answer: " + err.Error()
	}
	return r.compareReply(rec.name, rec.Response, got)
}

func (r *Runner) sendRecorded(ctx context.Context, rec *recording) (reply, error) {
	host := r.translate.text(rec.Request.To)
	if !strings.Contains(host, ":") {
		host += ":18083"
	}
	q := request{method: rec.Request.method(), host: host, path: r.translate.text(rec.Request.path()), auth: rec.Request.Auth, header: map[string]string{}}
	if q.auth == "" {
		q.auth = "Basic opkey:opsecret"
	}
	for name, value := range rec.Request.Headers {
		if name != "Host" && name != "Content-Length" {
			q.header[name] = fmt.Sprint(value)
		}
	}
	switch body := rec.Request.Body.(type) {
	case nil:
	case string:
		q.body, q.hasBody = []byte(r.translate.text(body)), true
		if len(rec.Request.Headers) == 0 {
			q.header["Content-Type"] = "text/plain"
		}
	default:
		data, err := json.Marshal(r.translate.value(body))
		if err != nil {
			return reply{}, fmt.Errorf("encode the request: %w", err)
		}
		q.body, q.hasBody = data, true
		if len(rec.Request.Headers) == 0 {
			q.header["Content-Type"] = "application/json"
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return r.send(ctx, q)
}

func (r *Runner) compareReply(file string, want *recordedResponse, got reply) string {
	if got.status != want.Status {
		return fmt.Sprintf("status: recorded %d, got %d %s", want.Status, got.status, short(string(got.raw)))
	}
	for _, name := range []string{"content-type", "allow", "www-authenticate", "retry-after"} {
		if recorded := want.Headers[name]; recorded != got.header.Get(name) {
			return fmt.Sprintf("header %s: recorded %q, got %q", name, recorded, got.header.Get(name))
		}
	}
	return r.comparer(file).differ("$", "", r.translate.value(want.Body), got.body)
}

// ClusterSize asks a node, with the key of the recordings, how many running nodes it sees; 0 when it does not answer.
func ClusterSize(ctx context.Context, address string) int {
	r := &Runner{targets: []string{address}, http: &http.Client{}}
	return len(r.clusterOf(ctx, 0))
}
