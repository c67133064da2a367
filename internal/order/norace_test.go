//go:build !race

package order_test

// raceRounds is how often a payment meets a time-out in each of several shops.
const raceRounds = 250
