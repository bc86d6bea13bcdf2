package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/storage"
)

// stored answers for a node without durable storage.
func (s *Server) stored(serve func(*request) response) func(*request) response {
	return func(r *request) response {
		if !s.cfg.Storage.Enabled() {
			return failure(http.StatusNotFound, "NOT_FOUND", "Durable storage is disabled")
		}
		return serve(r)
	}
}

// ofStorage answers for a database that there is not.
func (s *Server) ofStorage(serve func(*request) response) func(*request) response {
	return func(r *request) response {
		if name := r.params["ds"]; !slices.Contains(s.cfg.Storage.Storages(), name) {
			return failure(http.StatusNotFound, "NOT_FOUND", fmt.Sprintf("DB '%s' does not exist", name))
		}
		return serve(r)
	}
}

func (s *Server) getSites(*request) response {
	return jsonResponse(http.StatusOK, s.cfg.Storage.Sites())
}

func siteNotFound(id string) response {
	return failure(http.StatusNotFound, "NOT_FOUND", "Site not found: "+id)
}

func (s *Server) getSite(r *request) response {
	site, known := s.cfg.Storage.Site(r.params["site"])
	if !known {
		return siteNotFound(r.params["site"])
	}
	return jsonResponse(http.StatusOK, site)
}

func (s *Server) forgetSite(r *request) response {
	err := s.cfg.Storage.Forget(r.params["site"])
	switch {
	case errors.Is(err, storage.ErrUnknownSite):
		return siteNotFound(r.params["site"])
	case err != nil:
		return storageRefused(err)
	default:
		return noContent()
	}
}

func (s *Server) getStorages(*request) response {
	return jsonResponse(http.StatusOK, s.cfg.Storage.Storages())
}

func (s *Server) getStorage(r *request) response {
	database, _ := s.cfg.Storage.Storage(r.params["ds"])
	return jsonResponse(http.StatusOK, database)
}

func (s *Server) getReplicas(r *request) response {
	return jsonResponse(http.StatusOK, s.cfg.Storage.Replicas(r.params["ds"]))
}

// putReplicas reads its body, a list of sites, before it looks for the database.
func (s *Server) putReplicas(r *request) response {
	if !isJSON(r.Request) {
		return failure(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "content-type:application/json Required")
	}
	var value any
	if err := json.Unmarshal(r.raw, &value); err != nil {
		return badRequest("Invalid json message received")
	}
	list, isList := value.([]any)
	if !isList {
		return badRequest(faultText([]fault{wrong("root", value, "not_array")}))
	}
	sites := make([]string, 0, len(list))
	for i, item := range list {
		site, isText := item.(string)
		if !isText {
			return badRequest(faultText([]fault{wrong(fmt.Sprintf("root.%d", i+1), item, expectation{"binary()"})}))
		}
		sites = append(sites, site)
	}
	return s.ofStorage(func(r *request) response { return accepted(s.cfg.Storage.Assign(r.params["ds"], sites)) })(r)
}

func (s *Server) joinReplica(r *request) response {
	return accepted(s.cfg.Storage.Modify(r.params["ds"], storage.Step{Site: r.params["site"], Joining: true}))
}

func (s *Server) leaveReplica(r *request) response {
	err := s.cfg.Storage.Modify(r.params["ds"], storage.Step{Site: r.params["site"]})
	if errors.Is(err, storage.ErrNotMember) {
		return failure(http.StatusNotFound, "NOT_FOUND", err.Error())
	}
	return accepted(err)
}

// accepted is the answer to a change that goes on by itself: a bare text that claims to be JSON.
func accepted(err error) response {
	if err != nil {
		return storageRefused(err)
	}
	return response{status: http.StatusAccepted, contentType: "application/json", body: []byte("OK")}
}

// storageRefused has a number where other refusals have a word.
func storageRefused(err error) response {
	return jsonResponse(http.StatusBadRequest, struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}{http.StatusBadRequest, err.Error()})
}
