package measure

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// What an upgrade must keep.
const (
	// FloorFactor times Floor.Total is how long an upgrade may take.
	FloorFactor = 1.15
	// LeastShare of the clients must stay connected, at any rate, with the default of maxUnavailableClients.
	LeastShare = 0.88
	// AwayFactor times the limit is how many clients may be away at once: what is told here was counted on the way.
	AwayFactor = 1.2
	// StarvedGapSeconds between two counts, which are due every 0.1 s, tells that the machine did not keep up. What then
	// depends on its speed says nothing about the operator: it is shown, and not judged.
	StarvedGapSeconds = 0.75
	// StarvedShare of the machine's processor time in use tells the same: somebody waited for it all the while.
	StarvedShare = 0.97
	// PlaceSeconds is for how much longer than its pod takes to start a node that is replaced in place may have no client.
	PlaceSeconds = 5.0
)

// Figures are what was measured of an upgrade.
type Figures struct {
	// From and To are the revisions.
	From string `json:"from"`
	To   string `json:"to"`
	// Clients is how many there are, ClientsBack how many the update revision's nodes have at the end.
	Clients     int `json:"clients"`
	ClientsBack int `json:"clientsBack"`
	// MessagesAcknowledged, MessagesLost and MessagesRepeated count messages, after all had time to arrive.
	MessagesAcknowledged uint64 `json:"messagesAcknowledged"`
	MessagesLost         uint64 `json:"messagesLost"`
	MessagesRepeated     uint64 `json:"messagesRepeated"`
	// MaxDisconnects is how often the unluckiest client was disconnected; SessionsLost how often one came back and the
	// broker had no session for it.
	MaxDisconnects int64 `json:"maxDisconnects"`
	SessionsLost   int64 `json:"sessionsLost"`
	// MaxAway is the most clients that were away at once; LowestShare the least share of them connected.
	MaxAway     int     `json:"maxAway"`
	LowestShare float64 `json:"lowestShare"`
	// LongestGapSeconds is the longest time between two counts of the connected clients, which are due every 0.1 s. It tells
	// how far the machine kept up: while the clients' own program does not run, no client can come back.
	LongestGapSeconds float64 `json:"longestGapSeconds"`
	// BusyShare is the part of the machine's processor time that was in use from Patched to Ready, by whomever; 0 when unknown.
	BusyShare float64 `json:"busyShare"`
	// ReturnSeconds is how long 19 of 20 clients that were cut off took to be back, at most.
	ReturnSeconds float64 `json:"returnSeconds"`
	// Limit is how many clients may be away at once.
	Limit int `json:"limit"`
	// ConnEvictRate is the rate asked for.
	ConnEvictRate int32 `json:"connEvictRate"`
	// States are the values of STATUS from the change on, each with the time it was first seen.
	States []StateChange `json:"states"`
	// EvacuationsSeen is how many entries of nodeEvacuationsStatus were looked at while clients moved, and
	// EvacuationKeysMissing which documented keys any of them lacked.
	EvacuationsSeen       int      `json:"evacuationsSeen"`
	EvacuationKeysMissing []string `json:"evacuationKeysMissing,omitempty"`
	// InPlace tells that the node was replaced in place, under its name: From and To are the same. OutageSeconds is for how long
	// no client was connected then.
	InPlace       bool    `json:"inPlace,omitempty"`
	OutageSeconds float64 `json:"outageSeconds,omitempty"`
	// NodesBefore and NodesAfter are the names of the nodes.
	NodesBefore []string `json:"nodesBefore"`
	NodesAfter  []string `json:"nodesAfter"`
	// Leftovers names pods, sets, members of EMQX and sites of its durable storage that should be gone.
	Leftovers []string `json:"leftovers,omitempty"`
	// SecretsTold names secrets of the cluster that are told in a log, an event, a status, metrics or another object.
	SecretsTold []string `json:"secretsTold,omitempty"`
	// Table is what `kubectl get emqx` printed at the end.
	Table string `json:"table"`
	// Patched is when the watch showed the change, Ready when it showed STATUS Ready again.
	Patched time.Time `json:"patched"`
	Ready   time.Time `json:"ready"`
	// Floor is the shortest time in which it could be done.
	Floor Floor `json:"floor"`
	// KubeRequests are the operator's requests to kube-apiserver from Patched to Ready, EMQXRequests those to EMQX.
	KubeRequests []RequestCount `json:"kubeRequests"`
	EMQXRequests []RequestCount `json:"emqxRequests"`
	// Checks compare the figures with their limits.
	Checks []Check `json:"checks"`
}

// Floor is the shortest time in which an upgrade can be done, in seconds, by its parts.
type Floor struct {
	SlowestStartSeconds float64 `json:"slowestStartSeconds"`
	InitialDelaySeconds float64 `json:"initialDelaySeconds"`
	EvictionSeconds     float64 `json:"evictionSeconds"`
	EvictionRate        float64 `json:"evictionRate"`
	WaitTakeoverSeconds float64 `json:"waitTakeoverSeconds"`
	SessionsSeconds     float64 `json:"sessionsSeconds"`
	// ReplicasSeconds is how long replicas of durable storage take to move: those of a shard one after the other.
	ReplicasSeconds float64 `json:"replicasSeconds"`
}

// JoinSeconds is how long the stand-in takes to copy a replica, as recorded of an EMQX without data.
// EMQX_STANDIN_STORAGE_SCALE multiplies it, and leaveSeconds.
const JoinSeconds = 5.0

// leaveSeconds is how long the stand-in takes to drop a replica.
const leaveSeconds = 0.2

// Total is the sum of the parts, in seconds.
func (f Floor) Total() float64 {
	return f.SlowestStartSeconds + f.InitialDelaySeconds + f.EvictionSeconds + f.WaitTakeoverSeconds + f.SessionsSeconds + f.ReplicasSeconds
}

// Check is a figure and its limit.
type Check struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// Limit is what the value must be; empty when the value is for information only.
	Limit string `json:"limit,omitempty"`
	OK    bool   `json:"ok"`
}

// Seconds is the time from the change to Ready.
func (f *Figures) Seconds() float64 { return f.Ready.Sub(f.Patched).Seconds() }

// OK says whether every figure keeps its limit.
func (f *Figures) OK() bool {
	return len(f.Checks) > 0 && !slices.ContainsFunc(f.Checks, func(c Check) bool { return !c.OK })
}

// Failed names the figures that do not keep their limit.
func (f *Figures) Failed() []string {
	var names []string
	for _, check := range f.Checks {
		if !check.OK {
			names = append(names, check.Name)
		}
	}
	return names
}

// starved tells that the machine did not keep up.
func (f *Figures) starved() bool {
	return f.LongestGapSeconds > StarvedGapSeconds || f.BusyShare > StarvedShare
}

// add compares a figure with its limit.
func (f *Figures) add(ok bool, name, value, limit string) {
	f.Checks = append(f.Checks, Check{Name: name, Value: value, Limit: limit, OK: ok})
}

// inform shows a figure.
func (f *Figures) inform(name, value string) { f.add(true, name, value, "") }

// judge compares a figure that depends on the machine's speed with its limit.
func (f *Figures) judge(ok bool, name, value, limit string) {
	if !ok && f.starved() {
		f.inform(name, value+" (the machine was starved: "+limit+")")
		return
	}
	f.add(ok, name, value, limit)
}

// check compares the figures with their limits.
func (f *Figures) check() {
	f.add(f.ClientsBack == f.Clients, "clients on revision "+f.To, Count(f.ClientsBack), Count(f.Clients))
	if f.InPlace {
		f.checkInPlace()
	} else {
		f.checkBlueGreen()
	}
	f.inform("clients are back within", fmt.Sprintf("%.2f s (19 of 20)", f.ReturnSeconds))
	f.inform("longest gap between counts", fmt.Sprintf("%.1f s (due every 0.1 s)", f.LongestGapSeconds))
	if f.BusyShare > 0 {
		f.inform("processors in use", fmt.Sprintf("%.0f %%", 100*f.BusyShare))
	}
	f.add(inOrder(f.States, f.InPlace), "STATUS", strings.Join(stateNames(f.States), " → "), "Ready → phases → Ready")
	f.add(len(f.Leftovers) == 0, "old pods, sets, members and sites left", orNone(f.Leftovers), "none")
	f.add(len(f.SecretsTold) == 0, "secrets told in logs, objects, metrics", orNone(f.SecretsTold), "none")
	f.add(documentedTable(f.Table), "kubectl get emqx", strings.Join(strings.Fields(firstLine(f.Table)), " "), "NAME STATUS AGE")
	seconds := fmt.Sprintf("%.1f s", f.Seconds())
	if f.InPlace {
		f.inform("time from patch to Ready", seconds)
		return
	}
	limit := FloorFactor * f.Floor.Total()
	f.judge(f.Seconds() <= limit, "time from patch to Ready", seconds, fmt.Sprintf("at most %.1f s", limit))
}

// checkBlueGreen is that clients were moved from one set of nodes to another, and missed nothing.
func (f *Figures) checkBlueGreen() {
	f.add(f.MessagesLost == 0 && f.MessagesAcknowledged > 0, "messages lost", fmt.Sprintf("%s of %s", Count(f.MessagesLost), Count(f.MessagesAcknowledged)), "0")
	f.inform("messages repeated", Count(f.MessagesRepeated))
	f.inform("sessions lost", Count(f.SessionsLost))
	f.add(f.MaxDisconnects <= 1, "most disconnects of a client", Count(f.MaxDisconnects), "at most 1")
	away := int(AwayFactor * float64(f.Limit))
	f.judge(f.MaxAway <= away, "most clients away at once", Count(f.MaxAway), "at most "+Count(away))
	share := fmt.Sprintf("%.1f %%", 100*f.LowestShare)
	if float64(f.Limit) <= 0.1*float64(f.Clients) {
		f.judge(f.LowestShare >= LeastShare, "lowest share connected", share, fmt.Sprintf("at least %.0f %%", 100*LeastShare))
	} else {
		f.inform("lowest share connected", share)
	}
	keys := "all"
	if len(f.EvacuationKeysMissing) > 0 {
		keys = "without " + strings.Join(f.EvacuationKeysMissing, ", ")
	}
	f.add(f.EvacuationsSeen > 0 && len(f.EvacuationKeysMissing) == 0, "keys of nodeEvacuationsStatus",
		fmt.Sprintf("%s, in %d entries", keys, f.EvacuationsSeen), "all")
}

// checkInPlace is that a node came back under its name as soon as its pod had started. What was in its memory is gone: sessions,
// and messages that were queued in them.
func (f *Figures) checkInPlace() {
	f.add(slices.Equal(f.NodesBefore, f.NodesAfter), "nodes", strings.Join(f.NodesAfter, ", "), "as before")
	f.inform("messages lost", fmt.Sprintf("%s of %s: with one node, sessions in memory end", Count(f.MessagesLost), Count(f.MessagesAcknowledged)))
	f.inform("sessions lost", Count(f.SessionsLost))
	limit := f.Floor.SlowestStartSeconds + PlaceSeconds
	f.judge(f.OutageSeconds <= limit, "nobody connected for", fmt.Sprintf("%.1f s", f.OutageSeconds),
		fmt.Sprintf("at most %.1f s: the pod's start and %.0f s", limit, PlaceSeconds))
}

// stateNames are the values of STATUS one after the other.
func stateNames(changes []StateChange) []string {
	var names []string
	for _, change := range changes {
		if len(names) == 0 || names[len(names)-1] != change.State {
			names = append(names, change.State)
		}
	}
	return names
}

// inOrder says whether STATUS went from Ready through the phases back to Ready. Those that are left at once may have
// been missed by the watch.
func inOrder(changes []StateChange, inPlace bool) bool {
	names := stateNames(changes)
	if len(names) < 3 || names[0] != "Ready" || names[len(names)-1] != "Ready" {
		return false
	}
	order := v2beta1.Phases()
	last := -1
	for _, name := range names[1 : len(names)-1] {
		at := slices.Index(order, v2beta1.Phase(name))
		if at <= last {
			return false
		}
		last = at
	}
	if inPlace {
		return slices.Contains(names, string(v2beta1.PhaseProvisioning))
	}
	for _, needed := range []v2beta1.Phase{v2beta1.PhaseProvisioning, v2beta1.PhaseSwitching, v2beta1.PhaseEvacuating, v2beta1.PhaseScalingDown} {
		if !slices.Contains(names, string(needed)) {
			return false
		}
	}
	return true
}

// documentedTable says whether kubectl printed the documented columns, and Ready in that of STATUS.
func documentedTable(table string) bool {
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 2 || !slices.Equal(strings.Fields(lines[0]), []string{"NAME", "STATUS", "AGE"}) {
		return false
	}
	fields := strings.Fields(lines[1])
	return len(fields) == 3 && fields[1] == "Ready"
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Count writes a whole number with a comma every three digits.
func Count[T int | int32 | int64 | uint64](n T) string {
	digits := fmt.Sprint(n)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
