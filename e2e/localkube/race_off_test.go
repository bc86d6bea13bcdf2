//go:build !race

package localkube_test

// raceFlags are those of the program under test: none.
func raceFlags() []string { return nil }
