//go:build race

package cluster_test

// raceFlags make the program under test watch for races as this one does.
func raceFlags() []string { return []string{"-race"} }
