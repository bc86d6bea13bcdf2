package resources

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/emqx-bg/emqx-bg-operator/pkg/hocon"
)

// bind is what a listener listens on.
type bind struct {
	port int32
	// loopback tells that nobody outside the pod reaches it.
	loopback bool
}

const maxPort = 65535

// bind reads a setting such as 1883, ":1883", "0.0.0.0:1883" or "[::]:1883". It reports false when there is none, or none
// that can be known.
func (r *reader) bind(parent view, place, name string) (bind, bool) {
	v := parent.get(name)
	switch v.kind() {
	case hocon.Absent, hocon.Null:
		return bind{}, false
	case hocon.Unknown:
		r.cannotKnow(place + "." + name)
		return bind{}, false
	case hocon.String:
	case hocon.Number:
		if v.value.IsInteger() {
			break
		}
		fallthrough
	default:
		r.refuse(place+"."+name, "this is a port, or an address and a port in quotes")
		return bind{}, false
	}
	text, _ := v.value.Text()
	parsed, reason := parseBind(text)
	if reason != "" {
		r.refuse(place+"."+name, reason)
		return bind{}, false
	}
	return parsed, true
}

// parseBind reads a bind as EMQX does: blanks do not count anywhere, the port may have a sign, and an address may stand in
// brackets. It gives a reason when there is none.
func parseBind(text string) (bind, string) {
	text = strings.ReplaceAll(text, " ", "")
	colon := strings.LastIndexByte(text, ':')
	host, port := text[:max(colon, 0)], text[colon+1:]
	number, err := strconv.ParseInt(port, 10, 64)
	switch {
	case err != nil || strings.ContainsAny(port, "_"):
		return bind{}, "the port is no number"
	case number < 0:
		return bind{}, "the port is negative"
	case number > maxPort:
		return bind{}, "the port is larger than 65535"
	}
	if inner, bracketed := strings.CutPrefix(host, "["); bracketed {
		var closed bool
		if host, closed = strings.CutSuffix(inner, "]"); !closed {
			return bind{}, "the bracket around the address is not closed"
		}
	}
	parsed := bind{port: int32(number)}
	if host == "" {
		return parsed, ""
	}
	address, ok := parseAddress(host)
	if !ok {
		return bind{}, "the address is no IP address, and EMQX takes no names"
	}
	parsed.loopback = address.Unmap().IsLoopback()
	return parsed, ""
}

// parseAddress reads an IP address. As EMQX does, it takes 127.1 and the like: the last number fills what is left.
func parseAddress(text string) (netip.Addr, bool) {
	if address, err := netip.ParseAddr(text); err == nil {
		return address, true
	}
	parts := strings.Split(text, ".")
	if len(parts) > 4 || strings.Contains(text, "_") {
		return netip.Addr{}, false
	}
	var sum uint64
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 0, 32)
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (4 - i)
		}
		if err != nil || n >= 1<<bits {
			return netip.Addr{}, false
		}
		sum = sum<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}), true
}
