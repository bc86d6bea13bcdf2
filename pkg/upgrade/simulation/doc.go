// Package simulation runs the whole operator, informers, workers and drivers included, in virtual time against a simulated
// Kubernetes and a simulated EMQX, with random events and faults, and holds what comes of it against the invariants. It is
// made of tests only.
//
// What happens depends on the seed alone. The world is touched by one goroutine: whatever the operator asks is laid on a
// desk, waits there until nobody moves any more, and is answered in an order that has nothing to do with that of goroutines.
//
// The files: desk_test.go (who asks, and when the answer comes), apiserver_test.go and clients_test.go (Kubernetes as the
// operator sees it), kubernetes_test.go (its controllers and kubelets), broker_test.go and api_test.go (EMQX),
// population_test.go (the MQTT clients, as numbers), people_test.go (users, strangers and faults), invariants_test.go (the
// truth that the operator is judged by).
package simulation
