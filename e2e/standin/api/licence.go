package api

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

func (s *Server) getLicence(*request) response {
	return jsonResponse(http.StatusOK, s.cfg.Licence.Info())
}

// postLicence takes a new key, unless it is the community one and there are other nodes.
func (s *Server) postLicence(r *request) response {
	if !isJSON(r.Request) {
		return failure(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "content-type:application/json Required")
	}
	var body struct {
		Key string `json:"key"`
	}
	var object map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(r.raw, &body), json.Unmarshal(r.raw, &object)); err != nil {
		return badRequest("Invalid json message received")
	}
	if _, given := object["key"]; !given {
		return badRequest("Invalid request params")
	}
	if !s.cfg.Licence.Accepts(body.Key) {
		if s.cfg.Old() {
			return badRequest("Bad license key")
		}
		return badRequest("Bad license key, see logs for more details")
	}
	if s.cfg.Licence.SingleNode(body.Key) && len(s.cfg.Cluster.Running()) > 1 {
		return badRequest("SINGLE_NODE_LICENSE")
	}
	licence := s.effective().Sub("license").Clone()
	licence.Set(body.Key, "key")
	if answer := s.change(settings.Tree{"license": licence}, true); answer.status != http.StatusOK {
		return answer
	}
	return jsonResponse(http.StatusOK, s.cfg.Licence.Info())
}

func (s *Server) getLicenceSetting(*request) response {
	setting := s.effective().Sub("license").Clone()
	delete(setting, "key")
	return jsonResponse(http.StatusOK, setting)
}
