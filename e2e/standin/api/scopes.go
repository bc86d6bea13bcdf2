package api

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// scopeSystem is the scope that amounts to all others.
const scopeSystem = "system"

// knowsScopes reports whether API keys have scopes in a release.
func knowsScopes(release string) bool {
	v, err := version.ParseGeneric(release)
	if err != nil {
		return false
	}
	for _, since := range []string{"5.10.4", "6.0.3", "6.1.2", "6.2.1"} {
		first := version.MustParseGeneric(since)
		if v.Major() == first.Major() && v.Minor() == first.Minor() {
			return v.AtLeast(first)
		}
	}
	return v.AtLeast(version.MustParseGeneric("6.3.0"))
}

// scopeOf is the scope that a path of the API belongs to; empty for those that need none.
func scopeOf(path string) string {
	area, _, _ := strings.Cut(strings.TrimPrefix(path, basePath+"/"), "/")
	switch area {
	case "cluster", "nodes", "load_rebalance", "node_eviction":
		return "cluster_operations"
	case "configs", "listeners", "ds":
		return scopeSystem
	case "license":
		return "license"
	case "stats":
		return "monitoring"
	case "clients":
		return "connections"
	case "publish":
		return "publish"
	}
	return ""
}

// bootstrapScopes are the scopes of a line of the key file. Unknown ones are dropped. So is system, which amounts to all, beside any
// others: in EMQX that is so in later releases than the first with scopes.
func bootstrapScopes(text string) []string {
	known := []string{
		"connections", "publish", "data_integration", "access_control", "gateways", "monitoring", "cluster_operations", scopeSystem, "audit", "license",
	}
	scopes := []string{}
	for scope := range strings.SplitSeq(text, ",") {
		if scope = strings.TrimSpace(scope); slices.Contains(known, scope) {
			scopes = append(scopes, scope)
		}
	}
	if len(scopes) > 1 {
		scopes = slices.DeleteFunc(scopes, func(scope string) bool { return scope == scopeSystem })
	}
	return scopes
}

// allows reports whether a key may be used for a call.
func (k Key) allows(method, path string) bool {
	scope := scopeOf(path)
	return k.Role.allows(method, path) && (k.Scopes == nil || scope == "" || slices.Contains(k.Scopes, scope))
}
