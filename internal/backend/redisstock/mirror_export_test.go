package redisstock

import "sluice/internal/stock"

// Careless takes the guard off that holders come before the counts which miss
// their units.
func (m *Mirror) Careless() { m.careless = true }

// Pages makes a reading carry so many entries and users.
func (m *Mirror) Pages(size int) { m.page = size }

// Eager lets every step read, though nothing happens.
func (m *Mirror) Eager() { m.quiet = 0 }

// Users is the key of a bucket's users.
func Users(p stock.Place) string { return newBucket(p).u }

// Stream is the key of a bucket's stream.
func Stream(p stock.Place) string { return newBucket(p).s }
