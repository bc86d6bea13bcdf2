package replay

// skippedClasses are the recordings that cannot be replayed, by what the stand-in has not, or what cannot be made again.
var skippedClasses = []struct{ from, to, reason string }{ //nolint:gochecknoglobals // a table
	{"178", "180", "the command line emqx ctl is not imitated"},
	{"401", "448", "there are no replicants"},
	{"469", "469", "chance: what EMQX keeps of a listener that could not move"},
	{"477", "477", "there is no authentication of MQTT clients"},
	{"485", "485", "chance: what EMQX keeps of a listener that could not move"},
	{"505", "505", "the stand-in's services run before its node counts as running: there is no moment to ask in between"},
	{"588", "588", "there is no authentication of MQTT clients"},
	{"601", "604", "there are no replicants"},
	{"636", "636", "there are no durable sessions that a client could find on another node"},
	{"637", "637", "there are no durable sessions: an evacuation does not count the absent clients of the whole cluster"},
}

// SkipReason says why a recording cannot be replayed; empty: it can, or nobody has looked at it.
func SkipReason(name string) string {
	for _, class := range skippedClasses {
		if n := number(name); n >= class.from && n <= class.to {
			return class.reason
		}
	}
	return ""
}
