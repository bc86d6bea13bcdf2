package gauge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// Request is one request to kube-apiserver that was answered.
type Request struct {
	User     string
	Verb     string
	Resource string
	// Namespace and Name are of the object that it is about.
	Namespace, Name string
	Received, Ended time.Time
	Code            int
}

// Write reports whether the request changes something.
func (r Request) Write() bool {
	if r.Resource == "selfsubjectaccessreviews" {
		return false // It is a question.
	}
	switch r.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return true
	}
	return false
}

// Audit reads the audit log of a kube-apiserver, which writes a request before it is answered.
type Audit struct {
	path   string
	offset int64
	rest   []byte
}

// NewAudit reads the log of a path from its present end on.
func NewAudit(path string) (*Audit, error) {
	a := &Audit{path: path}
	_, err := a.Next()
	return a, err
}

// line is what is read of the log.
type line struct {
	Stage string `json:"stage"`
	Verb  string `json:"verb"`
	User  struct {
		Username string `json:"username"`
	} `json:"user"`
	ObjectRef struct {
		Resource, Subresource, Namespace, Name string
	} `json:"objectRef"`
	RequestURI     string `json:"requestURI"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Received time.Time `json:"requestReceivedTimestamp"`
	Ended    time.Time `json:"stageTimestamp"`
}

// Next returns the requests since the last call, in the order in which they were answered. A log that was begun anew in
// between is an error: what the old one had at its end would be missing.
func (a *Audit) Next() ([]Request, error) {
	file, err := os.Open(a.path)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	defer func() { _ = file.Close() }() // It was only read.
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	if info.Size() < a.offset {
		return nil, fmt.Errorf("read the audit log %s: it was begun anew, requests are missing", a.path)
	}
	text, err := io.ReadAll(io.NewSectionReader(file, a.offset, info.Size()-a.offset))
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	a.offset += int64(len(text))
	text = append(a.rest, text...)
	var requests []Request
	for {
		one, rest, whole := bytes.Cut(text, []byte{'\n'})
		if !whole {
			a.rest = bytes.Clone(text)
			return requests, nil
		}
		text = rest
		var l line
		if err := json.Unmarshal(one, &l); err != nil {
			return nil, fmt.Errorf("read a line of the audit log: %w", err)
		}
		if l.Stage != "ResponseComplete" && l.Stage != "Panic" {
			continue
		}
		resource := l.ObjectRef.Resource
		if l.ObjectRef.Subresource != "" {
			resource += "/" + l.ObjectRef.Subresource
		}
		if resource == "" {
			resource = l.RequestURI
		}
		requests = append(requests, Request{
			User: l.User.Username, Verb: l.Verb, Resource: resource, Namespace: l.ObjectRef.Namespace, Name: l.ObjectRef.Name,
			Received: l.Received, Ended: l.Ended, Code: l.ResponseStatus.Code,
		})
	}
}
