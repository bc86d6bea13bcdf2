#!/usr/bin/env bash
# All tests, as events: unit and contract tests of the operator with the race detector, the simulation, and the
# end-to-end module, of whose packages two run at a time: most of them wait for clusters, and more would starve each other.
set -uo pipefail
failed=0
go test -json -race -count=1 ./... || failed=1
GOGC=4000 go test -json -count=1 -timeout 40m ./pkg/upgrade/simulation -run 'TestSimulation$' -sim.runs "$SIM_RUNS" || failed=1
(cd e2e && go test -json -count=1 -p 2 -timeout 40m ./...) || failed=1
exit $failed
