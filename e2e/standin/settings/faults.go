package settings

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fault is why EMQX refuses a root of a change.
type Fault struct {
	Root string
	// Answer is what stands under the root's name in the answer. It is nil for what EMQX answers with an internal error.
	Answer any
	// Thrown is that error, as an Erlang term.
	Thrown string
}

// Faults checks a change against EMQX's schema, as far as the stand-in knows it. EMQX's internal errors come first:
// they end its check.
func Faults(roots Tree) []Fault {
	var faults []Fault
	for _, root := range roots.Keys() {
		if !KnownRoot(root) {
			faults = append(faults, Fault{Root: root, Answer: fmt.Sprintf("{root_key_not_found,<<%q>>}", root)})
			continue
		}
		for _, check := range []func(string, Tree) *Fault{unknownFields, badWatermark, badMechanism, badValue} {
			if fault := check(root, roots); fault != nil {
				faults = append(faults, *fault)
				break
			}
		}
	}
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return strings.Compare(strconv.FormatBool(b.Thrown != ""), strconv.FormatBool(a.Thrown != ""))
	})
	return faults
}

func invalid(root, path, reason string, value any) *Fault {
	return &Fault{Root: root, Answer: map[string]any{"kind": "validation_error", "path": path, "reason": reason, "value": value}}
}

// fieldsOf is every field of the trees of which the stand-in knows that.
func fieldsOf(path string) []string {
	switch path {
	case "mqtt":
		return strings.Fields(mqttFields)
	case "alarm", "license", "sys_topics", "sys_topics.sys_event_messages", "sysmon", "sysmon.os", "sysmon.vm":
		fields := Defaults().Sub(strings.Split(path, ".")...).Keys()
		if path == "sysmon" {
			fields = append(fields, "top")
		}
		return fields
	default:
		return nil
	}
}

func unknownFields(root string, roots Tree) *Fault {
	path := root
	var walk func(path string, tree Tree) *Fault
	walk = func(path string, tree Tree) *Fault {
		fields := fieldsOf(path)
		if fields == nil {
			return nil
		}
		var unmatched, unknown []string
		for _, field := range fields {
			if _, given := tree[field]; !given {
				unmatched = append(unmatched, field)
			}
		}
		for _, field := range tree.Keys() {
			if !slices.Contains(fields, field) {
				unknown = append(unknown, field)
			}
		}
		if len(unknown) > 0 {
			return &Fault{Root: root, Thrown: fmt.Sprintf("#{reason => unknown_fields,path => %q,unknown => %q,"+
				"kind => validation_error,unmatched => %q}", path, Shorten(unknown), Shorten(unmatched))}
		}
		for _, field := range tree.Keys() {
			if sub, isTree := tree[field].(Tree); isTree {
				if fault := walk(path+"."+field, sub); fault != nil {
					return fault
				}
			}
		}
		return nil
	}
	return walk(path, roots.Sub(root))
}

// Shorten lists at most two names, as EMQX does.
func Shorten(names []string) string {
	names = slices.Sorted(slices.Values(names))
	if len(names) > 2 {
		return strings.Join(names[:2], ",") + ",..."
	}
	return strings.Join(names, ",")
}

// percent reads a share such as 80%.
func percent(value any) (float64, bool) {
	text, marked := strings.CutSuffix(strings.TrimSpace(fmt.Sprint(value)), "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if marked {
		v /= 100
	}
	return v, err == nil && v >= 0 && v <= 1
}

func badWatermark(root string, roots Tree) *Fault {
	broken := func(result, name string) *Fault {
		return &Fault{Root: root, Thrown: fmt.Sprintf("#{kind => validation_error,reason => integrity_validation_failure,"+
			"result => {%s},validation_name => %s}", result, name)}
	}
	filled, _ := Fill(root, roots[root]).(Tree)
	switch root {
	case "license":
		high, low := filled["connection_high_watermark"], filled["connection_low_watermark"]
		h, highOK := percent(high)
		l, lowOK := percent(low)
		if !highOK || !lowOK || h <= l {
			return broken(fmt.Sprintf("bad_license_watermark,#{high => <<%q>>,low => <<%q>>}", high, low), "check_license_watermark")
		}
	case "sysmon":
		for _, pair := range [][3]string{
			{"vm", "process", "check_process_watermark"}, {"os", "cpu", "check_cpu_watermark"},
		} {
			var bad []string
			values := map[string]float64{}
			for _, side := range []string{"high", "low"} {
				key := pair[1] + "_" + side + "_watermark"
				value, _ := filled.Get(pair[0], key)
				v, ok := percent(value)
				if values[side] = v; !ok {
					bad = append(bad, fmt.Sprintf("\"sysmon.%s.%s\" => <<%q>>", pair[0], key, value))
				}
			}
			if len(bad) > 0 {
				return broken("bad_watermark,#{"+strings.Join(bad, ",")+"}", pair[2])
			}
			if values["high"] <= values["low"] {
				return broken("bad_watermark,high_is_not_above_low", pair[2])
			}
		}
	}
	return nil
}

// mechanisms is every authenticator EMQX has.
const mechanisms = `password_based:built_in_database password_based:mysql password_based:postgresql password_based:mongodb
password_based:redis password_based:http password_based:ldap jwt scram:built_in_database scram:http gcp_device cinfo
gssapi`

func badMechanism(root string, roots Tree) *Fault {
	chain, _ := roots[root].([]any)
	if root != "authentication" {
		return nil
	}
	for i, item := range chain {
		tree, _ := item.(Tree)
		if !contains(mechanisms, authenticatorOf(item)) {
			return &Fault{Root: root, Thrown: fmt.Sprintf("#{backend => <<%q>>,kind => validation_error,mechanism => <<%q>>,"+
				"path => \"authentication.%d\",reason => \"unsupported_mechanism\"}",
				tree.Text("", "backend"), tree.Text("", "mechanism"), i+1)}
		}
	}
	return nil
}

const logLevels = "debug info notice warning error critical alert emergency all"

func badValue(root string, roots Tree) *Fault {
	tree := roots.Sub(root)
	switch root {
	case "mqtt":
		if value, given := tree["max_packet_size"]; given && !ByteSize(value) {
			return invalid(root, "mqtt.max_packet_size", "Not a valid bytesize", value)
		}
	case "log":
		return badLog(tree)
	case "listeners":
		for _, kind := range tree.Keys() {
			for _, name := range tree.Sub(kind).Keys() {
				bind := tree.Sub(kind, name)["bind"]
				if reason := badBind(bind); reason != "" {
					return invalid(root, fmt.Sprintf("listeners.%s.%s.bind", kind, name), reason, bind)
				}
			}
		}
	}
	return nil
}

func badLog(tree Tree) *Fault {
	for _, handler := range tree.Keys() {
		paths := [][]string{{handler}}
		if handler == "file" {
			for _, name := range tree.Sub(handler).Keys() {
				paths = append(paths, []string{handler, name})
			}
		}
		for _, path := range paths {
			for key, allowed := range map[string]string{"level": logLevels, "formatter": "text json"} {
				value, given := tree.Get(append(slices.Clone(path), key)...)
				if given && !contains(allowed, fmt.Sprint(value)) {
					return invalid("log", "log."+strings.Join(path, ".")+"."+key, "unable_to_convert_to_enum_symbol", value)
				}
			}
		}
	}
	return nil
}
