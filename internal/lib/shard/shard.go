// Package shard says which of 1,024 logical shards a user belongs to.
//
// A logical shard is the smallest thing that can live somewhere: databases and
// tables hold ranges of them, and moving data is moving a range. The number and
// the function can therefore never change. An order id carries the shard of its
// user ([sluice/internal/lib/id]), so that "the orders of this user" and "the
// order of this id" ask the same one place.
//
// A user's hash is spent from the top, and no bit of it twice:
//
//	bits 63..54  10  the logical shard
//	bits 53..50   4  the mark in an order id
//	bits 49..0    -  free: whoever needs a further choice below the shard takes these
//
// Two choices made from the same bits are one choice. Where a database is
// user%4 and a table in it user%4 too, database 0 has users in table 0 only:
// 12 of 16 tables stay empty. So a place below the shard is a range of shards,
// or it is chosen by bits that no one has used, and never by "the hash again".
package shard

import "github.com/cespare/xxhash/v2"

const (
	// Bits is how many bits of an order id name its logical shard.
	Bits = 10
	// Logical is the number of logical shards.
	Logical = 1 << Bits
)

// Of is the logical shard of a user, 0..Logical-1. It allocates nothing.
func Of(user string) int { return OfHash(Hash(user)) }

// Hash is the hash of a user that all placing starts from: XXH64 with seed 0
// (github.com/Cyan4973/xxHash), of which every bit is as good as any other,
// also for users whose names differ in their last digit only.
func Hash(user string) uint64 { return xxhash.Sum64String(user) }

// OfHash is the logical shard of the user with this Hash, 0..Logical-1.
func OfHash(hash uint64) int { return int(hash >> (64 - Bits)) }
