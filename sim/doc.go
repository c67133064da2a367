// Package sim runs the whole engine in one process under a seed: the real
// ledger on a simulated disk, the real store, landing, relay, time-outs,
// payments and the operators' desk, driven step by step, with shoppers and a
// payment provider that misbehave, crashes, power cuts, disk and store faults
// and a clock that is stepped. It consists of tests only.
//
// An oracle beside it (oracle_test.go) keeps its own account of everything:
// every entry of the durable log, every reply a shopper or operator got, every
// capture and refund at the provider, every event delivered. After each step
// the engine is held against it.
//
// A few short scenarios are gone through in another way (cuts_test.go): the
// power is cut at each of their disk operations, with each image that it can
// leave and each commit of the store that can stand beside it.
//
// The same seed is the same run, whatever the machine does: time, ids,
// randomness and the moments of faults come from the seed, and goroutines take
// turns (testing/synctest). A failing seed is printed with the shortest run that
// still fails; "make sim SEED=…" replays it with a trace.
//
// It refuses to look inside: what it checks is what the contracts of the
// engine's rooms promise, through their exported doors.
package sim
