package resources

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/hocon"
)

// view is a setting with what the environment says over it.
type view struct {
	value hocon.Value
	over  *override
}

// override is what the environment says of a setting: a value of its own, and values of settings within it.
type override struct {
	value   hocon.Value
	set     bool
	unknown bool
	// why says why it is unknown.
	why   string
	inner map[string]*override
}

// kind tells what a setting is. One with settings of the environment within it is an object, whatever it was.
func (v view) kind() hocon.Kind {
	switch {
	case v.over == nil:
		return v.value.Kind()
	case len(v.over.inner) > 0:
		return hocon.Object
	case v.over.unknown:
		return hocon.Unknown
	default:
		return v.value.Kind()
	}
}

func (v view) get(name string) view {
	return v.with(v.value.Get(name), name)
}

func (v view) with(value hocon.Value, name string) view {
	if v.over == nil {
		return view{value: value}
	}
	over := v.over.inner[name]
	if over != nil && over.set {
		value = over.value
	}
	return view{value, over}
}

// members gives the settings within a setting, by name.
func (v view) members() iter.Seq2[string, view] {
	return func(yield func(string, view) bool) {
		var added []string
		if v.over != nil {
			for name := range v.over.inner {
				if v.value.Get(name).Kind() == hocon.Absent {
					added = append(added, name)
				}
			}
			slices.Sort(added)
		}
		for name, value := range v.value.Members() {
			if !yield(name, v.with(value, name)) {
				return
			}
		}
		for _, name := range added {
			if !yield(name, v.get(name)) {
				return
			}
		}
	}
}

// environment is what the EMQX_ variables say.
type environment struct {
	root    *override
	unknown []string
}

// at gives what the environment itself says of a setting.
func (e environment) at(path ...string) *override {
	over := e.root
	for _, name := range path {
		if over == nil {
			return nil
		}
		over = over.inner[name]
	}
	return over
}

const environmentPrefix = "EMQX_"

// readEnvironment reads the variables as EMQX does: EMQX_A__B=value is a.b = value, where the value is HOCON if it can be
// read as such and text otherwise. Kubernetes takes the last of several variables of one name; EMQX goes by their names.
func readEnvironment(env []corev1.EnvVar) environment {
	e := environment{root: &override{}}
	variables := map[string]variable{}
	for i, v := range env {
		value := variable{index: i, known: v.ValueFrom == nil}
		if value.known {
			value.text, value.known = expand(v.Value, variables)
		}
		variables[v.Name] = value
	}
	type named struct {
		name string
		variable
	}
	var sorted []named
	for name, v := range variables {
		if strings.HasPrefix(name, environmentPrefix) {
			sorted = append(sorted, named{name, v})
		}
	}
	slices.SortFunc(sorted, func(a, b named) int { return cmp.Compare(a.name, b.name) })
	for _, v := range sorted {
		path := environmentPath(v.name)
		if !counts(path) {
			continue
		}
		over := e.root.put(v.variable, path)
		if !v.known {
			over.why = fmt.Sprintf("spec.coreTemplate.spec.env[%d] (%s) has a value from elsewhere that is not known", v.index, v.name)
			if path[0] != "license" { // A licence opens no port.
				e.unknown = append(e.unknown, over.why)
			}
		}
	}
	return e
}

// variable is a variable of the environment, as Kubernetes gives it to the container.
type variable struct {
	index int
	text  string
	known bool
}

// expand replaces $(NAME) by variables before it, as Kubernetes does. $$ is a dollar; what names no variable stays.
func expand(text string, variables map[string]variable) (string, bool) {
	var out strings.Builder
	for {
		at := strings.IndexByte(text, '$')
		if at < 0 || at+1 == len(text) {
			out.WriteString(text)
			return out.String(), true
		}
		out.WriteString(text[:at])
		end := -1
		if text[at+1] == '(' {
			end = strings.IndexByte(text[at:], ')')
		}
		switch {
		case text[at+1] == '$':
			out.WriteByte('$')
			text = text[at+2:]
		case end < 0:
			out.WriteByte('$')
			text = text[at+1:]
		default:
			v, exists := variables[text[at+2:at+end]]
			switch {
			case exists && !v.known:
				return "", false
			case exists:
				out.WriteString(v.text)
			default:
				out.WriteString(text[at : at+end+1])
			}
			text = text[at+end+1:]
		}
	}
}

// environmentPath is the setting that a variable sets. Empty names do not count.
func environmentPath(name string) []string {
	path := strings.Split(strings.ToLower(strings.TrimPrefix(name, environmentPrefix)), "__")
	return slices.DeleteFunc(path, func(name string) bool { return name == "" })
}

// counts tells whether a setting is one of those that are read here. EMQX ignores a variable that names no setting, so that
// a listener of an unknown type is no error in the environment.
func counts(path []string) bool {
	if len(path) == 0 {
		return false
	}
	switch path[0] {
	case "listeners":
		return len(path) < 2 || slices.Contains(listenerTypes(), path[1])
	case "dashboard":
		return len(path) < 2 || path[1] == "listeners" && (len(path) < 3 || path[2] == "http" || path[2] == "https")
	case "durable_sessions":
		return len(path) < 2 || path[1] == "enable"
	case "zones":
		return len(path) < 3 || path[2] == "durable_sessions"
	case "license":
		return len(path) < 2 || path[1] == "key"
	case "gateway":
		return true
	default:
		return false
	}
}

// put replaces a setting, as EMQX does also where it is an object, and gives what it put.
func (o *override) put(v variable, path []string) *override {
	for _, name := range path {
		if o.inner == nil {
			o.inner = map[string]*override{}
		}
		next := o.inner[name]
		if next == nil {
			next = &override{}
			o.inner[name] = next
		}
		o = next
	}
	*o = override{set: true, unknown: !v.known}
	if v.known {
		o.value = environmentValue(v.text)
	}
	return o
}

func environmentValue(text string) hocon.Value {
	const key = "fake_key"
	if document, err := hocon.Parse(key + "=" + text); err == nil && text != "" {
		if value := document.Root.Get(key); value.Kind() != hocon.Absent {
			return value
		}
	}
	return hocon.StringValue(text)
}
