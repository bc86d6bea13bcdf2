package emqx

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// What EMQX may refuse or fail to do, for errors.Is. The texts behind them are those of the broker's source
// (apps/emqx_node_rebalance and apps/emqx_management).
var (
	// ErrSilent: no answer, or none in time. Nothing is known.
	ErrSilent = errors.New("the node does not answer")
	// ErrUnauthorized: EMQX does not know the API key or its secret.
	ErrUnauthorized = errors.New("EMQX refuses the API key")
	// ErrUntrusted: who answers over HTTPS cannot be told to be the node. No API key was sent.
	ErrUntrusted = errors.New("the certificate of the node's API is not trusted")
	// ErrForbidden: the API key's role does not allow the call.
	ErrForbidden = errors.New("the API key is not allowed to do this")
	// ErrBooting: the HTTP server runs but the API is not there yet.
	ErrBooting = errors.New("the API of the node is not there yet")
	// ErrUnknownNode: the node that was asked does not count the named node among the running ones.
	ErrUnknownNode = errors.New("the node is not running in the cluster")
	// ErrAlreadyStarted: the evacuation, or the rebalance, runs already. To an order to start it this is success.
	ErrAlreadyStarted = errors.New("it has already been started")
	// ErrNotStarted: no evacuation, or no rebalance, runs. To an order to stop it this is success.
	ErrNotStarted = errors.New("none has been started")
	// ErrNothingToBalance: all nodes are within the thresholds of a rebalance.
	ErrNothingToBalance = errors.New("the nodes are within the thresholds")
	// ErrInvalid: the order has a value that EMQX does not take from anybody.
	ErrInvalid = errors.New("EMQX does not take this order")
	// ErrAgentBusy: a rebalance or a purge holds the node.
	ErrAgentBusy = errors.New("a rebalance or a purge holds the node")
	// ErrRecipients: a node named as recipient is unknown or not available.
	ErrRecipients = errors.New("a recipient is not available")
	// ErrNotMember: the node is no member of the cluster. To an order to forget it this is success.
	ErrNotMember = errors.New("the node is no member of the cluster")
	// ErrEvacuating: the node is being evacuated and takes no clients.
	ErrEvacuating = errors.New("the node is being evacuated")
	// ErrStorageDisabled: the node has no durable storage.
	ErrStorageDisabled = errors.New("durable storage is disabled")
	// ErrUnknownSite: the cluster knows no such site of its durable storage.
	ErrUnknownSite = errors.New("the site is not known")
	// ErrNoSuchCall: this version of EMQX does not have the call.
	ErrNoSuchCall = errors.New("this version of EMQX cannot do this")
	// ErrRemoteCall: a call between EMQX nodes failed or took too long.
	ErrRemoteCall = errors.New("a call between EMQX nodes failed")
)

// APIError is an answer other than success.
type APIError struct {
	// Status is the HTTP status.
	Status int
	// Code is EMQX's own, empty when the body was not in its form. Some endpoints give a number; it is here as text.
	Code string
	// Message is EMQX's own, shortened.
	Message string
	// kind is the error above that it amounts to, nil for none.
	kind error
}

// Error gives the kind of the error, when it is known, and EMQX's words.
func (e *APIError) Error() string {
	words := fmt.Sprintf("HTTP %d", e.Status)
	if e.Code != "" {
		words += " " + e.Code
	}
	if e.Message != "" {
		words += ": " + e.Message
	}
	if e.kind != nil {
		return e.kind.Error() + " (" + words + ")"
	}
	return words
}

// Unwrap lets errors.Is find the kind.
func (e *APIError) Unwrap() error { return e.kind }

const maxMessageLength = 300

func newAPIError(response *http.Response, body []byte) *APIError {
	failure := &APIError{Status: response.StatusCode}
	var answer struct {
		Code    any    `json:"code"`
		Message string `json:"message"`
	}
	switch {
	case isJSON(response.Header) && json.Unmarshal(body, &answer) == nil:
		failure.Message = answer.Message
		if answer.Code != nil {
			failure.Code = fmt.Sprint(answer.Code)
		}
	case response.StatusCode == http.StatusNotFound:
		// The page of a dashboard whose API is not there yet.
	default:
		// A call among nodes that failed arrives as plain text under a JSON content type.
		failure.Message = strings.TrimSpace(string(body))
	}
	if len(failure.Message) > maxMessageLength {
		failure.Message = failure.Message[:maxMessageLength] + "…"
	}
	failure.kind = kindOf(failure)
	return failure
}

// kindOf is the one place where EMQX's texts are matched: it has no codes for these.
func kindOf(e *APIError) error {
	switch e.Status {
	case http.StatusUnauthorized:
		return ErrUnauthorized
	case http.StatusForbidden:
		return ErrForbidden
	case http.StatusServiceUnavailable:
		if e.Code == "NODE_EVACUATING" {
			return ErrEvacuating
		}
		return ErrBooting
	case http.StatusNotFound:
		return kindOfMissing(e)
	case http.StatusInternalServerError:
		if strings.Contains(e.Message, "RPC_ERROR") || strings.Contains(e.Message, "{error,timeout}") {
			return ErrRemoteCall
		}
		return nil
	case http.StatusBadRequest:
		return kindOfRefusal(e)
	}
	return nil
}

// kindOfMissing tells apart what is answered with 404.
func kindOfMissing(e *APIError) error {
	switch {
	case strings.HasPrefix(e.Message, "Node not found"):
		return ErrUnknownNode
	case strings.HasPrefix(e.Message, "Durable storage is disabled"):
		return ErrStorageDisabled
	case strings.HasPrefix(e.Message, "Site not found"):
		return ErrUnknownSite
	case strings.HasPrefix(e.Message, "Request Path Not Found"):
		return ErrNoSuchCall
	}
	return ErrBooting
}

func kindOfRefusal(e *APIError) error {
	switch {
	case strings.HasSuffix(e.Message, ": already_started"):
		return ErrAlreadyStarted
	case strings.HasSuffix(e.Message, ": not_started"):
		return ErrNotStarted
	case strings.HasSuffix(e.Message, ": nothing_to_balance"):
		return ErrNothingToBalance
	case strings.Contains(e.Message, `"kind":"validation_error"`):
		return ErrInvalid
	case strings.HasSuffix(e.Message, ": eviction_agent_busy"):
		return ErrAgentBusy
	case strings.HasPrefix(e.Message, "Nodes unavailable"), strings.HasPrefix(e.Message, "Invalid nodes"):
		return ErrRecipients
	case strings.Contains(e.Message, "node_not_in_cluster"):
		return ErrNotMember
	}
	return nil
}
