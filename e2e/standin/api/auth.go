package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// Role is what a key or a user may do.
type Role string

// The roles of EMQX's API keys.
const (
	Administrator Role = "administrator" // everything
	Viewer        Role = "viewer"        // every GET
	Publisher     Role = "publisher"     // publish messages
)

func (r Role) allows(method, path string) bool {
	switch r {
	case Administrator:
		return true
	case Viewer:
		return method == http.MethodGet || method == http.MethodHead
	case Publisher:
		return method == http.MethodPost && strings.HasPrefix(path, basePath+"/publish")
	default:
		return false
	}
}

func unauthorized(code, message string) *response {
	r := failure(http.StatusUnauthorized, code, message)
	r.headers = map[string]string{"WWW-Authenticate": `Basic Realm="emqx-dashboard"`}
	return &r
}

// authenticate returns what is wrong with the credentials, or nil.
func (s *Server) authenticate(r *http.Request) *response {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch strings.ToLower(scheme) {
	case "basic":
		return s.authenticateKey(r, value)
	case "bearer":
		return s.authenticateToken(r, value)
	default:
		return unauthorized("AUTHORIZATION_HEADER_ERROR", "Support authorization: basic/bearer ")
	}
}

func (s *Server) authenticateKey(r *http.Request, credentials string) *response {
	for _, path := range []string{"users", "logout", "api_key"} {
		if strings.HasPrefix(r.URL.Path, basePath+"/"+path) {
			return unauthorized("API_KEY_NOT_ALLOW",
				"Please use bearer Token instead, using API key/secret in "+path+" path is not permitted")
		}
	}
	decoded, err := base64.StdEncoding.DecodeString(credentials)
	key, secret, found := strings.Cut(string(decoded), ":")
	if err != nil || !found {
		return unauthorized("BAD_API_KEY_OR_SECRET", "Check api_key/api_secret")
	}
	known, ok := s.cfg.Keys.Check(key, secret)
	if !ok {
		return unauthorized("BAD_API_KEY_OR_SECRET", "Check api_key/api_secret")
	}
	if !known.allows(r.Method, r.URL.Path) {
		refused := failure(http.StatusForbidden, "UNAUTHORIZED_ROLE",
			"This API Key don't have permission to access this resource")
		return &refused
	}
	return nil
}

// token is what a dashboard user gets at login. It is signed with a secret that all nodes share, so that every node
// takes it.
type token struct {
	User    string    `json:"user"`
	Role    Role      `json:"role"`
	Expires time.Time `json:"expires"`
}

func (s *Server) sign(payload string) string {
	mac := hmac.New(sha256.New, []byte(s.cfg.TokenSecret))
	mac.Write([]byte("dashboard token " + payload))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (s *Server) issueToken(user string) (string, error) {
	body, err := json.Marshal(token{User: user, Role: Administrator, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		return "", err
	}
	payload := base64.RawURLEncoding.EncodeToString(body)
	return payload + "." + s.sign(payload), nil
}

func (s *Server) authenticateToken(r *http.Request, value string) *response {
	payload, signature, _ := strings.Cut(value, ".")
	if !hmac.Equal([]byte(signature), []byte(s.sign(payload))) {
		return unauthorized("BAD_TOKEN", "Get a token by POST /login")
	}
	var t token
	body, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(body, &t) != nil {
		return unauthorized("BAD_TOKEN", "Get a token by POST /login")
	}
	if time.Now().After(t.Expires) {
		return unauthorized("TOKEN_TIME_OUT", "Token expired, get new token by POST /login")
	}
	if !t.Role.allows(r.Method, r.URL.Path) {
		refused := failure(http.StatusForbidden, "UNAUTHORIZED_ROLE", "You don't have permission to access this resource")
		return &refused
	}
	return nil
}

// login takes the dashboard's user; the credentials are EMQX's defaults or what the configuration says.
func (s *Server) login(r *request) response {
	var who struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if !isJSON(r.Request) {
		return failure(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "content-type:application/json Required")
	}
	if err := json.Unmarshal(r.raw, &who); err != nil {
		return badRequest("Invalid json message received")
	}
	c := s.cfg.Config.Effective()
	user := c.Text("admin", "dashboard", "default_username")
	password := c.Text("public", "dashboard", "default_password")
	if who.Username != user || subtle.ConstantTimeCompare([]byte(who.Password), []byte(password)) != 1 {
		return *unauthorized("BAD_USERNAME_OR_PWD", "Auth failed")
	}
	t, err := s.issueToken(user)
	if err != nil {
		return internalError("error, encode token, []")
	}
	answer := map[string]any{
		"role": Administrator, "token": t, "version": s.cfg.Version, "license": map[string]string{"edition": "ee"},
	}
	if !s.cfg.Old() {
		answer["namespace"] = nil
	}
	return jsonResponse(http.StatusOK, answer)
}
