// Package api is the management API of an EMQX stand-in, on the dashboard's port.
//
// It keeps the rules of EMQX's HTTP framework: a request is checked for its path, then its method, then its
// credentials, then its body, then the body's fields, and only then handled; each check has EMQX's own status, content
// type and text. Answers about other nodes are asked of those nodes, with EMQX's timeouts, so that a frozen node makes
// the same requests slow as it does there.
//
// Endpoints that the stand-in does not have answer as unknown paths.
package api
