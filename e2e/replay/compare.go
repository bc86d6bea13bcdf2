package replay

import (
	"fmt"
	"sort"
)

// comparer compares JSON values of one file by the rules.
type comparer struct {
	file string
	// otherRelease is set for nodes of another release than the recorded one.
	otherRelease bool
}

// differ returns the first difference, or nothing.
func (c comparer) differ(path, key string, want, got any) string {
	if kind(want) != kind(got) {
		return fmt.Sprintf("%s: recorded %s %s, got %s %s", path, kind(want), short(want), kind(got), short(got))
	}
	switch want := want.(type) {
	case map[string]any:
		return c.objects(path, want, got.(map[string]any))
	case []any:
		return c.lists(path, key, want, got.([]any))
	case string:
		if machineKey(key, true) || c.ofRelease(key) || loose(c.file, key) || plainTerm(want) == plainTerm(got.(string)) {
			return ""
		}
	case float64:
		if machineKey(key, false) || loose(c.file, key) || want == got {
			return ""
		}
	default:
		if want == got {
			return ""
		}
	}
	return fmt.Sprintf("%s: recorded %s, got %s", path, short(want), short(got))
}

func (c comparer) objects(path string, want, got map[string]any) string {
	for _, key := range keysOf(want) {
		item, ok := got[key]
		if !ok {
			return fmt.Sprintf("%s: no key %q", path, key)
		}
		if d := c.differ(path+"."+key, key, want[key], item); d != "" {
			return d
		}
	}
	if _, client := want["clientid"]; client {
		return ""
	}
	for _, key := range keysOf(got) {
		if _, ok := want[key]; !ok && !c.ofRelease(key) {
			return fmt.Sprintf("%s: key %q that was not recorded", path, key)
		}
	}
	return ""
}

func (c comparer) ofRelease(key string) bool {
	_, ok := releaseKeys[key]
	return ok && c.otherRelease
}

func (c comparer) lists(path, key string, want, got []any) string {
	if len(want) != len(got) {
		return fmt.Sprintf("%s: %d items recorded, got %d", path, len(want), len(got))
	}
	by := ""
	if len(want) > 0 {
		by = setKey(want[0])
	}
	if by != "" && !loose(c.file, by) {
		return c.sets(path, key, by, want, got)
	}
	for i := range want {
		if d := c.differ(fmt.Sprintf("%s[%d]", path, i), key, want[i], got[i]); d != "" {
			return d
		}
	}
	return ""
}

// sets compares lists of objects by a key that tells them apart.
func (c comparer) sets(path, key, by string, want, got []any) string {
	for _, item := range want {
		name := item.(map[string]any)[by]
		found := false
		for _, other := range got {
			object, ok := other.(map[string]any)
			if !ok || object[by] != name {
				continue
			}
			found = true
			if d := c.differ(fmt.Sprintf("%s[%v]", path, name), key, item, other); d != "" {
				return d
			}
		}
		if !found {
			return fmt.Sprintf("%s: no item with %s %v", path, by, name)
		}
	}
	return ""
}

func keysOf(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case float64:
		return "number"
	case string:
		return "text"
	case []any:
		return "list"
	case map[string]any:
		return "object"
	default:
		return fmt.Sprintf("%T", v)
	}
}

func short(v any) string {
	text := fmt.Sprintf("%v", v)
	if s, ok := v.(string); ok {
		text = fmt.Sprintf("%q", s)
	}
	const most = 160
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
