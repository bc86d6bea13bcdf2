package resources

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/hocon"
)

// Config is what the operator needs to know of a configuration. Reading it once is enough.
type Config struct {
	// Ports are the ports that it opens.
	Ports Ports
	// DurableSessions tells that sessions are kept in EMQX's durable storage, in any zone.
	DurableSessions bool
	// Licence is what it says of EMQX's licence.
	Licence Licence
	// NodeCookie is the cookie that the text gives, or empty.
	NodeCookie string
	// Unknown says what cannot be known here, a sentence each, and so may open other ports than these.
	Unknown []string
}

// Licence is what a configuration says of EMQX's licence. The key itself is not kept.
type Licence int

// What a configuration may say of it.
const (
	// LicenceUnset: nothing. A node has the licence of the cluster that it joins, and EMQX's default when there is none.
	LicenceUnset Licence = iota
	// LicenceDefault: EMQX's default is asked for.
	LicenceDefault
	// LicenceKey: there is a key.
	LicenceKey
	// LicenceNotKnown: there may be one, from where it cannot be read here.
	LicenceNotKnown
)

// ConfigOf reads the configuration of a resource.
func ConfigOf(emqx *v2beta1.EMQX) (Config, error) {
	core := emqx.Spec.CoreTemplate.Spec
	config, err := ParseConfig(emqx.Spec.Config.Data, core.Env)
	if err != nil {
		return Config{}, err
	}
	if len(core.EnvFrom) > 0 && config.Licence == LicenceUnset {
		config.Licence = LicenceNotKnown
	}
	for i := range core.EnvFrom {
		config.Unknown = append(config.Unknown, fmt.Sprintf("spec.coreTemplate.spec.envFrom[%d] may set any EMQX_ variable", i))
	}
	return config, nil
}

// ParseConfig reads a configuration as EMQX does: the text, and the EMQX_ variables of the environment over it. What EMQX
// refuses is refused, with the place: a *hocon.Error has that in the text, all other errors begin with the name of the
// setting.
func ParseConfig(data string, env []corev1.EnvVar) (Config, error) {
	document, err := readConfig(data)
	if err != nil {
		return Config{}, err
	}
	r := reader{}
	for _, include := range document.Includes {
		r.unknown = append(r.unknown, fmt.Sprintf("%q is included, and what it says is not known", include.Target))
	}
	overrides := readEnvironment(env)
	r.unknown = append(r.unknown, overrides.unknown...)
	root := view{document.Root, overrides.root}
	config := Config{
		Ports:           Ports{Dashboard: r.dashboard(root, overrides), Listeners: r.listeners(root)},
		DurableSessions: r.durableSessions(root),
		Licence:         licenceOf(root, len(document.Includes) > 0),
	}
	config.NodeCookie, _ = document.Root.Get("node", "cookie").Text()
	if r.err != nil {
		return Config{}, r.err
	}
	if len(config.Ports.Dashboard) == 0 {
		return Config{}, overrides.unreachable()
	}
	config.Unknown = r.unknown
	return config, nil
}

// unreachable says why no port of the dashboard is there for the operator.
func (e environment) unreachable() error {
	for _, protocol := range []string{"http", "https"} {
		place := []string{"dashboard", "listeners", protocol, "bind"}
		if over := e.at(place...); over != nil && over.unknown {
			return fmt.Errorf("%s: %s, so that EMQX could not be managed", strings.Join(place, "."), over.why)
		}
	}
	return errors.New("dashboard.listeners: neither http nor https can be reached from outside the pod, so that EMQX could not be managed")
}

// CookieOr gives the cookie of the configuration, if it has one, and another otherwise.
func (c Config) CookieOr(other string) string {
	if c.NodeCookie != "" {
		return c.NodeCookie
	}
	return other
}

// reader takes from a configuration what counts. It goes on after an error and keeps the first.
type reader struct {
	err     error
	unknown []string
}

func (r *reader) refuse(place, reason string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", place, reason)
	}
}

func (r *reader) cannotKnow(place string) {
	r.unknown = append(r.unknown, place+" depends on what is not known")
}

// object reads a setting that holds others. Null counts as absent.
func (r *reader) object(parent view, place, name string) view {
	v := parent.get(name)
	switch v.kind() {
	case hocon.Object, hocon.Absent:
		return v
	case hocon.Null:
		return view{}
	case hocon.Unknown:
		r.cannotKnow(place)
	default:
		r.refuse(place, "this holds settings, so it must be an object")
	}
	return view{}
}

// boolean reads the first of some settings that is there. EMQX takes true and false, also in quotes, and no other word.
func (r *reader) boolean(parent view, place string, otherwise bool, names ...string) bool {
	for _, name := range names {
		v := parent.get(name)
		switch v.kind() {
		case hocon.Absent, hocon.Null:
			continue
		case hocon.Unknown:
			r.cannotKnow(place + "." + name)
			return otherwise
		default:
		}
		switch text, _ := v.value.Text(); text {
		case "true":
			return true
		case "false":
			return false
		default:
			r.refuse(place+"."+name, "this is true or false and nothing else")
			return otherwise
		}
	}
	return otherwise
}

func (r *reader) durableSessions(root view) bool {
	durable := func(parent view, place string) bool {
		place += "durable_sessions"
		return r.boolean(r.object(parent, place, "durable_sessions"), place, false, "enable")
	}
	zones := r.object(root, "zones", "zones")
	all := []bool{durable(root, "")}
	for name := range zones.members() {
		all = append(all, durable(r.object(zones, "zones."+name, name), "zones."+name+"."))
	}
	return slices.Contains(all, true)
}

// licenceOf reads license.key. What is included may set it.
func licenceOf(root view, includes bool) Licence {
	license := root.get("license")
	if license.kind() == hocon.Unknown {
		return LicenceNotKnown
	}
	key := license.get("key")
	text, isText := key.value.Text()
	switch {
	case key.kind() == hocon.Unknown, key.kind() == hocon.Absent && includes:
		return LicenceNotKnown
	case key.kind() == hocon.Absent, key.kind() == hocon.Null:
		return LicenceUnset
	case isText && text == "default":
		return LicenceDefault
	}
	return LicenceKey
}
