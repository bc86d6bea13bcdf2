package main

import "math"

// quantity is the form of numbers with units. The generator's own pattern takes some that Go does not, and an exponent of
// any size: computing the value of 1e999999999 never ends. Nothing in a cluster has more digits than these.
const (
	quantity       = `^[+-]?([0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20})([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$`
	quantityLength = 48
)

// The form of a time. The API server takes a list of anything for text with a format, and times that Go does not take: it is
// a pattern instead.
const (
	day       = `([0-9]{4}-(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|[0-9]{4}-(0[469]|11)-(0[1-9]|[12][0-9]|30)|[0-9]{4}-02-(0[1-9]|1[0-9]|2[0-8])|` + leapDay + `)`
	leapDay   = `([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29`
	clockTime = `([01][0-9]|2[0-3]):[0-5][0-9]`
	dateTime  = `^` + day + `T` + clockTime + `:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]` + clockTime + `)$`
	microTime = `^` + day + `T` + clockTime + `:[0-5][0-9]\.[0-9]{6}(Z|[+-]` + clockTime + `)$`
)

// tighten has the API server refuse what Go cannot decode. Whether it is a number with a unit or a number or text, the
// generator says x-kubernetes-int-or-string: only the first has a pattern. The second is a 32-bit number in Go, and none that is less
// than zero means anything.
func tighten(node any) {
	switch node := node.(type) {
	case map[string]any:
		if node["x-kubernetes-int-or-string"] == true {
			if _, withUnit := node["pattern"]; withUnit {
				node["pattern"], node["maxLength"] = quantity, quantityLength
			} else {
				node["minimum"], node["maximum"] = 0, math.MaxInt32
			}
		}
		if node["format"] == "date-time" {
			delete(node, "format")
			if node["pattern"] == nil {
				node["pattern"] = dateTime
			}
		}
		for _, child := range node {
			tighten(child)
		}
	case []any:
		for _, child := range node {
			tighten(child)
		}
	}
}
