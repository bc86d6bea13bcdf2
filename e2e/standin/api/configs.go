package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// configErrors is the body of a refused configuration: JSON that is sent as text.
func configErrors(v any) response {
	body, err := json.Marshal(map[string]any{"errors": v})
	if err != nil {
		return internalError("error, encode, []")
	}
	return response{status: http.StatusBadRequest, contentType: "text/plain", body: body}
}

// getConfigs gives the configuration as HOCON, or a few roots as JSON when that is asked for.
func (s *Server) getConfigs(r *request) response {
	accept := r.Header.Get("Accept")
	tree := s.effective()
	switch {
	case strings.HasPrefix(accept, "application/json"):
		legacy := settings.Tree{}
		for _, root := range []string{"dashboard", "alarm", "sys_topics", "sysmon", "log", "broker", "file_transfer"} {
			legacy[root] = tree.Sub(root).Clone()
		}
		legacy.Sub("dashboard").Set("******", "default_password")
		return jsonResponse(http.StatusOK, legacy)
	case accept == "", strings.Contains(accept, "text/plain"), strings.Contains(accept, "*/*"):
		shown := tree.Clone()
		for _, hidden := range []string{"trace", "stats", "broker", "plugins", "zones"} {
			delete(shown, hidden)
		}
		key := r.URL.Query().Get("key")
		if key != "" {
			value, known := shown[key]
			if !known {
				return noSuchSymbol("key", key)
			}
			shown = settings.Tree{key: value}
		}
		obscure(shown)
		if key == "node" { // asked for by itself, EMQX does not hide it
			shown["node"] = tree.Sub("node")
		}
		return response{status: http.StatusOK, contentType: "text/plain", body: []byte(shown.Render())}
	default:
		return failure(http.StatusBadRequest, "INVALID_ACCEPT", "Accept header must be text/plain or application/json")
	}
}

// noSuchSymbol refuses a parameter that is none of those there are.
func noSuchSymbol(parameter, value string) response {
	return badRequest(faultText([]fault{wrong(parameter, value, "unable_to_convert_to_enum_symbol")}))
}

// obscure hides what is secret. EMQX's own licence is not.
func obscure(tree settings.Tree) {
	for _, path := range [][]string{{"node", "cookie"}, {"dashboard", "default_password"}, {"license", "key"}} {
		if value, set := tree.Get(path...); set && value != "default" {
			tree.Set("******", path...)
		}
	}
}

// putConfigs changes the configuration of the whole cluster.
func (s *Server) putConfigs(r *request) response {
	query := r.URL.Query()
	mode := query.Get("mode")
	switch mode {
	case "":
		mode = "merge"
	case "merge", "replace":
	default:
		return noSuchSymbol("mode", mode)
	}
	ignore := query.Get("ignore_readonly") == "true"
	if isJSON(r.Request) || len(strings.TrimSpace(string(r.raw))) == 0 {
		given := "#{}"
		if isJSON(r.Request) && len(r.raw) > 0 {
			given = erlang(r.raw)
		}
		return internalError(fmt.Sprintf("error, function_clause, [{emqx_conf_cli,load_config,[%s,#{log => none,mode => %s,"+
			"ignore_readonly => %t}],[{file,\"/opt/emqx/lib/emqx_conf/src/emqx_conf_cli.erl\"},{line,319}]},"+
			"{emqx_mgmt_api_configs,configs,3,%s", given, mode, ignore, stack("emqx_mgmt_api_configs", 369)))
	}
	roots, err := settings.Parse(string(r.raw))
	if err != nil {
		line := 1
		var syntax *settings.SyntaxError
		if errors.As(err, &syntax) {
			line = syntax.Line
		}
		return configErrors(map[string]any{"line": line, "reason": "syntax error before: ", "type": "parse_error"})
	}
	if refused := dropReadOnly(roots, ignore); refused != nil {
		return *refused
	}
	if refused := checkRoots(roots); refused != nil {
		return *refused
	}
	return s.change(roots, mode == "replace")
}

// dropReadOnly refuses what only a restart can change, or leaves it out.
func dropReadOnly(roots settings.Tree, ignore bool) *response {
	var readOnly []string
	for _, root := range []string{"node", "rpc"} {
		if _, given := roots[root]; given {
			readOnly = append(readOnly, root)
			delete(roots, root)
		}
	}
	cluster := roots.Sub("cluster")
	for _, key := range cluster.Keys() {
		if key != "links" {
			readOnly = append(readOnly, "cluster."+key)
			delete(cluster, key)
		}
	}
	if len(cluster) == 0 {
		delete(roots, "cluster")
	}
	if len(readOnly) == 0 || ignore {
		return nil
	}
	sort.Strings(readOnly)
	refused := configErrors(fmt.Sprintf("Cannot update read-only key '%s'.", strings.Join(readOnly, ",")))
	return &refused
}

// checkRoots refuses roots and values that EMQX's schema does not know, as far as the stand-in knows the schema.
func checkRoots(roots settings.Tree) *response {
	answers := map[string]any{}
	for _, fault := range settings.Faults(roots) {
		if fault.Thrown != "" {
			refused := internalError(fmt.Sprintf("throw, {emqx_enterprise_schema,[%s]}, [{hocon_tconf,assert,2,%s",
				fault.Thrown, stack("emqx_mgmt_api_configs", 369)))
			return &refused
		}
		answers[fault.Root] = fault.Answer
	}
	if len(answers) == 0 {
		return nil
	}
	refused := configErrors(answers)
	return &refused
}

// erlang prints a JSON document as the Erlang term EMQX has of it.
func erlang(raw []byte) string {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return "#{}"
	}
	return term(v)
}

func term(v any) string {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for key := range v {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		parts := make([]string, 0, len(keys))
		for _, key := range keys {
			parts = append(parts, fmt.Sprintf("<<%q>> => %s", key, term(v[key])))
		}
		return "#{" + strings.Join(parts, ",") + "}"
	case []any:
		parts := make([]string, 0, len(v))
		for _, item := range v {
			parts = append(parts, term(item))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case string:
		return fmt.Sprintf("<<%q>>", v)
	case nil:
		return "null"
	default:
		return fmt.Sprint(v)
	}
}
