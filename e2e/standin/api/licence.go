package api

import (
	"encoding/json"
	"net/http"
	"strings"
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
	if err := json.Unmarshal(r.raw, &body); err != nil {
		return badRequest("Invalid json message received")
	}
	if strings.TrimSpace(body.Key) == "" {
		return badRequest("Bad license key, see logs for more details")
	}
	if s.cfg.Licence.CommunityKey(body.Key) && len(s.cfg.Cluster.Running()) > 1 {
		return badRequest("SINGLE_NODE_LICENSE")
	}
	s.cfg.Licence.Set(body.Key)
	return jsonResponse(http.StatusOK, s.cfg.Licence.Info())
}
