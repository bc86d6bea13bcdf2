package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
)

const (
	basePath     = "/api/v5"
	maxBodyBytes = 8 << 20
)

// access is who may use an endpoint.
type access int

const (
	protected access = iota // whoever has a key or a token, with the role the method needs
	public                  // everybody; credentials are not even looked at
)

// bodyKind is what an endpoint takes as its request's body.
type bodyKind int

const (
	noBody   bodyKind = iota // ignored
	jsonBody                 // an object that is checked against fields
	anyBody                  // read and left to the handler
)

// endpoint is one method of one path.
type endpoint struct {
	access access
	body   bodyKind
	fields []field
	serve  func(*request) response
}

// route is a path with its methods. Segments that begin with a colon match anything.
type route struct {
	segments []string
	methods  map[string]endpoint
}

// request is a request that has passed all checks.
type request struct {
	*http.Request
	params map[string]string
	raw    []byte         // the body
	body   map[string]any // the checked fields of a JSON body, converted
}

// response is what is written. A nil body is no body.
type response struct {
	status      int
	contentType string
	headers     map[string]string
	body        []byte
	hangUp      bool // close the connection without an answer
	orderly     bool // and without a reset
}

func jsonResponse(status int, v any) response {
	body, err := json.Marshal(v)
	if err != nil {
		return internalError("error, encode, " + err.Error())
	}
	return response{status: status, contentType: "application/json", body: body}
}

func noContent() response { return response{status: http.StatusNoContent} }

func failure(status int, code, message string) response {
	return jsonResponse(status, problem{Code: code, Message: message})
}

func badRequest(message string) response {
	return failure(http.StatusBadRequest, "BAD_REQUEST", message)
}

func internalError(message string) response {
	return failure(http.StatusInternalServerError, "INTERNAL_ERROR", message)
}

type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// unsupportedCode is what EMQX's framework makes of an error code that the endpoint did not declare: a text that
// claims to be JSON.
func unsupportedCode(code, message, declared string) response {
	text := fmt.Sprintf("Unsupported code '%s', message <<%q>>, schema def [%s]", code, message, declared)
	return response{status: http.StatusInternalServerError, contentType: "application/json", body: []byte(text)}
}

// ServeHTTP checks and answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	write(w, r, s.answer(r))
}

func (s *Server) answer(r *http.Request) response {
	segments := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	route, params := s.find(segments, strings.HasPrefix(r.URL.Path, basePath+"/"))
	if route == nil {
		return notFound(r)
	}
	e, ok := route.methods[r.Method]
	if !ok {
		return response{status: http.StatusMethodNotAllowed, headers: map[string]string{"allow": route.allow()}, body: []byte{}}
	}
	if e.access == protected {
		if refused := s.authenticate(r); refused != nil {
			return *refused
		}
	}
	req := &request{Request: r, params: params}
	if refused := req.readBody(e); refused != nil {
		return *refused
	}
	return e.serve(req)
}

// find looks a path up. Before the routes exist there is only /status, as while EMQX boots.
func (s *Server) find(segments []string, versioned bool) (*route, map[string]string) {
	if len(segments) == 1 && segments[0] == "status" {
		return s.status, nil
	}
	if !versioned || !s.ready.Load() {
		return nil, nil
	}
	segments = segments[2:]
	for _, route := range s.routes {
		if params, ok := route.match(segments); ok {
			return route, params
		}
	}
	return nil, nil
}

func (r *route) match(segments []string) (map[string]string, bool) {
	if len(segments) != len(r.segments) {
		return nil, false
	}
	params := map[string]string{}
	for i, want := range r.segments {
		if strings.HasPrefix(want, ":") {
			params[want[1:]] = segments[i]
		} else if want != segments[i] {
			return nil, false
		}
	}
	return params, true
}

func (r *route) allow() string {
	methods := make([]string, 0, len(r.methods))
	for method := range r.methods {
		methods = append(methods, method)
	}
	sort.Strings(methods)
	return strings.Join(methods, ", ")
}

func notFound(r *http.Request) response {
	accept := r.Header.Get("Accept")
	switch {
	case strings.HasPrefix(accept, "application/json"):
		return failure(http.StatusNotFound, "NOT_FOUND", "Request Path Not Found")
	case strings.HasPrefix(accept, "text/plain"):
		return response{status: http.StatusNotFound, contentType: "text/plain", body: []byte("404 - NOT FOUND")}
	default:
		page := "<html><head><title>404 - NOT FOUND</title></head><body><h1>404 - NOT FOUND</h1></body></html>"
		return response{status: http.StatusNotFound, contentType: "text/html", body: []byte(page)}
	}
}

// readBody reads and checks the body. An empty one counts as an object without fields.
func (r *request) readBody(e endpoint) *response {
	if e.body == noBody {
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes+1))
	if err != nil || len(raw) > maxBodyBytes {
		refused := badRequest("Invalid body")
		return &refused
	}
	r.raw = raw
	if e.body == anyBody {
		return nil
	}
	var value any = map[string]any{}
	if isJSON(r.Request) {
		if len(raw) > 0 {
			decoder := json.NewDecoder(strings.NewReader(string(raw)))
			decoder.UseNumber()
			if err := decoder.Decode(&value); err != nil || !errors.Is(decoder.Decode(new(any)), io.EOF) {
				refused := badRequest("Invalid json message received")
				return &refused
			}
		}
	} else {
		refused := failure(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "content-type:application/json Required")
		return &refused
	}
	body, faults := check(value, e.fields)
	if len(faults) > 0 {
		refused := badRequest(faultText(faults))
		return &refused
	}
	r.body = body
	return nil
}

func isJSON(r *http.Request) bool {
	return strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "application/json")
}

func write(w http.ResponseWriter, r *http.Request, resp response) {
	if resp.hangUp {
		hangUp(w, resp.orderly)
		return
	}
	h := w.Header()
	h.Set("Server", "Cowboy")
	for name, value := range resp.headers {
		h.Set(name, value)
	}
	h["Content-Type"] = nil // Go would guess one
	if resp.contentType != "" {
		h.Set("Content-Type", resp.contentType)
	}
	if resp.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(resp.body)))
	}
	w.WriteHeader(resp.status)
	if r.Method != http.MethodHead && len(resp.body) > 0 {
		_, _ = w.Write(resp.body) // the client may be gone
	}
}

// hangUp closes the connection. A reset is what a crash of EMQX's handler looks like.
func hangUp(w http.ResponseWriter, orderly bool) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(interface{ SetLinger(int) error }); ok && !orderly {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
