package api

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

// kind is the type of a field.
type kind int

const (
	posInteger kind = iota // an integer of at least 1
	seconds                // whole seconds, or a duration as text
	millis                 // whole milliseconds, or a duration as text
	nodeNames              // a list of at least one text
	text
	aboveOne // a number above 1
)

// field is one field of a JSON body. All are optional.
type field struct {
	name string
	kind kind
}

const maxSeconds = 4294967

// fault is one thing wrong with a body, in the order in which EMQX prints it.
type fault struct {
	Value     any    `json:"value,omitempty"`
	Unmatched string `json:"unmatched,omitempty"`
	Unknown   string `json:"unknown,omitempty"`
	Reason    any    `json:"reason"`
	Path      string `json:"path"`
	Kind      string `json:"kind"`
	hasValue  bool
}

// MarshalJSON keeps a value that is there but empty.
func (f fault) MarshalJSON() ([]byte, error) {
	type plain fault
	if !f.hasValue {
		return json.Marshal(plain(f))
	}
	return json.Marshal(struct {
		Value  any    `json:"value"`
		Reason any    `json:"reason"`
		Path   string `json:"path"`
		Kind   string `json:"kind"`
	}{f.Value, f.Reason, f.Path, f.Kind})
}

type expectation struct {
	Expected string `json:"expected"`
}

func wrong(path string, value, reason any) fault {
	return fault{Value: value, hasValue: true, Reason: reason, Path: path, Kind: "validation_error"}
}

// check converts a body's fields: time.Duration, int, float64, string and []string. Unknown fields are reported
// first.
func check(value any, fields []field) (map[string]any, []fault) {
	object, ok := value.(map[string]any)
	if !ok {
		return nil, []fault{wrong("root", value, "bad_value_for_struct")}
	}
	if f, bad := unknownFields(object, fields); bad {
		return nil, []fault{f}
	}
	body := map[string]any{}
	var faults []fault
	for _, f := range fields {
		raw, given := object[f.name]
		if !given {
			continue
		}
		converted, reason := convert(raw, f.kind)
		if reason != nil {
			faults = append(faults, wrong("root."+f.name, raw, reason))
			continue
		}
		body[f.name] = converted
	}
	return body, faults
}

func unknownFields(object map[string]any, fields []field) (fault, bool) {
	known := map[string]bool{}
	var unmatched, unknown []string
	for _, f := range fields {
		known[f.name] = true
		if _, given := object[f.name]; !given {
			unmatched = append(unmatched, f.name)
		}
	}
	for name := range object {
		if !known[name] {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return fault{}, false
	}
	return fault{
		Unmatched: shorten(unmatched), Unknown: shorten(unknown), Reason: "unknown_fields", Path: "root", Kind: "validation_error",
	}, true
}

// shorten lists at most two names.
func shorten(names []string) string {
	sort.Strings(names)
	if len(names) > 2 {
		return strings.Join(names[:2], ",") + ",..."
	}
	return strings.Join(names, ",")
}

func faultText(faults []fault) string {
	var v any = faults
	if len(faults) == 1 {
		v = faults[0]
	}
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(body)
}

// convert returns the value, or why EMQX refuses it.
func convert(raw any, k kind) (value, reason any) {
	switch k {
	case posInteger:
		n, ok := integer(raw)
		if !ok || n < 1 || n > math.MaxInt32 {
			return nil, expectation{"pos_integer()"}
		}
		return int(n), nil
	case seconds:
		return duration(raw, time.Second, "emqx_schema:timeout_duration_s()")
	case millis:
		return duration(raw, time.Millisecond, "emqx_schema:timeout_duration_ms()")
	case nodeNames:
		return names(raw)
	case text:
		s, ok := raw.(string)
		if !ok {
			return nil, expectation{"binary()"}
		}
		return s, nil
	case aboveOne:
		n, ok := raw.(json.Number)
		f, err := n.Float64()
		if !ok || err != nil {
			return nil, expectation{"number()"}
		}
		if f <= 1 {
			return nil, "must be greater than 1.0"
		}
		return f, nil
	default:
		return nil, "unknown type"
	}
}

func integer(raw any) (int64, bool) {
	n, ok := raw.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := strconv.ParseInt(n.String(), 10, 64)
	return i, err == nil
}

func names(raw any) (value, reason any) {
	list, ok := raw.([]any)
	if !ok || len(list) == 0 {
		return nil, expectation{"[binary(),...]"}
	}
	out := make([]string, 0, len(list))
	for _, item := range list {
		s, ok := item.(string)
		if !ok {
			return nil, expectation{"[binary(),...]"}
		}
		out = append(out, s)
	}
	return out, nil
}

// duration reads whole units or a text such as 1h, 10s or 500ms, which is rounded up to whole units.
func duration(raw any, unit time.Duration, expected string) (value, reason any) {
	if s, ok := raw.(string); ok {
		d, err := parseDuration(s)
		if err != nil {
			return nil, "Not a valid duration"
		}
		if rest := d % unit; rest > 0 {
			d += unit - rest
		}
		if d > maxSeconds*time.Second {
			return nil, fmt.Sprintf("timeout value too large (max: %d s)", maxSeconds)
		}
		return d, nil
	}
	n, ok := integer(raw)
	if !ok || n < 0 {
		return nil, expectation{expected}
	}
	if n > maxSeconds*int64(time.Second/unit) {
		return nil, fmt.Sprintf("timeout value too large (max: %d s)", maxSeconds)
	}
	return time.Duration(n) * unit, nil
}

func parseDuration(s string) (time.Duration, error) {
	pattern := regexp.MustCompile(`(?i)^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?$`)
	parts := pattern.FindStringSubmatch(strings.ReplaceAll(s, " ", ""))
	if parts == nil || strings.TrimSpace(s) == "" {
		return 0, fmt.Errorf("%q is no duration", s)
	}
	units := []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second, time.Millisecond}
	var total time.Duration
	for i, unit := range units {
		if parts[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(parts[i+1], 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is no duration: %w", s, err)
		}
		total += time.Duration(n) * unit
	}
	return total, nil
}
