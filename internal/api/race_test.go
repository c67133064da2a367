//go:build race

package api

// pooled: under the race detector sync.Pool drops a part of what it is given.
const pooled = false
