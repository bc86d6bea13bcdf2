//go:build race

package localkube_test

// raceFlags make the program under test watch for races as this one does.
func raceFlags() []string { return []string{"-race"} }
