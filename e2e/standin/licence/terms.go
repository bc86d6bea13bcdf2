package licence

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

const (
	// trialSessions is what a trial allows, and communitySessions and officialSessions what the others do here.
	trialSessions     = 25
	communitySessions = 10_000_000
	officialSessions  = 10_000_000
	// evaluationCustomer and developerCustomer are types of customers.
	evaluationCustomer = 10
	developerCustomer  = 11
	// keyParts are the lines of a key.
	keyParts = 9
)

// terms is what a key says.
type terms struct {
	kind         Kind
	customerType int
	customer     string
	email        string
	deployment   string
	start        time.Time
	days         int
	sessions     int
}

// read finds out what a key says: EMQX's own by their names, a key in EMQX's form by itself, and any other is official.
func read(key string, old bool) terms {
	switch key = strings.TrimSpace(key); {
	case (key == "" || key == "default") && old:
		return evaluation(time.Date(2024, 4, 18, 0, 0, 0, 0, time.UTC), 1825)
	case key == "" || key == "default":
		return terms{
			kind: Community, customerType: developerCustomer, customer: "Developer", email: "contact@emqx.io",
			deployment: "Development", start: time.Date(2025, 3, 2, 0, 0, 0, 0, time.UTC), days: 1460, sessions: communitySessions,
		}
	case key == "evaluation":
		return evaluation(time.Date(2025, 3, 2, 0, 0, 0, 0, time.UTC), 1460)
	}
	if t, ok := parse(key); ok {
		return t
	}
	return terms{
		kind: Official, customerType: 1, customer: "Local cluster", email: "contact@emqx.io", deployment: "default",
		start: time.Now(), days: 1825, sessions: officialSessions,
	}
}

func evaluation(start time.Time, days int) terms {
	return terms{
		kind: Trial, customerType: evaluationCustomer, customer: "Evaluation", email: "contact@emqx.io",
		deployment: "trial", start: start, days: days, sessions: trialSessions,
	}
}

// parse reads a key: in front of its signature are lines, namely the format, the type, the customer's type, name and
// e-mail address, the deployment, the first day, the number of days and the number of sessions.
func parse(key string) (terms, bool) {
	payload, _, _ := strings.Cut(key, ".")
	raw, err := base64.StdEncoding.DecodeString(payload)
	if err != nil {
		return terms{}, false
	}
	lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
	if len(lines) != keyParts {
		return terms{}, false
	}
	kinds := map[string]Kind{"0": Trial, "1": Official, "2": Community}
	kind, known := kinds[lines[1]]
	customerType, err1 := strconv.Atoi(lines[2])
	start, err2 := time.Parse("20060102", lines[6])
	days, err3 := strconv.Atoi(lines[7])
	sessions, err4 := strconv.Atoi(lines[8])
	if !known || err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		return terms{}, false
	}
	if sessions == 0 { // The key leaves it to its kind.
		switch {
		case kind == Community:
			sessions = communitySessions
		case customerType == evaluationCustomer:
			sessions = trialSessions
		}
	}
	return terms{
		kind: kind, customerType: customerType, customer: lines[3], email: lines[4], deployment: lines[5],
		start: start, days: days, sessions: sessions,
	}, true
}
