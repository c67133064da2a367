//go:build race

package order_test

// The race detector makes the store ten times as slow, and looks for something
// else than which side wins: that is what the rounds without it are for.
const raceRounds = 80
