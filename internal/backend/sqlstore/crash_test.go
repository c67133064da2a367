package sqlstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sluice/internal/order"
)

// A power cut keeps some prefix of what was being written to SQLite's log.
// For cuts all over that log, before and after a checkpoint, the reopened
// store holds whole batches only, every batch that was acknowledged by then,
// and a watermark that says exactly which.
func TestCrashImages(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "shop.db")
	s := openAt(t, path, Options{})
	token, err := s.Fence(t.Context(), "wal")
	must(t, err)
	const size, batches = 20, 6
	from := 0
	for round := range 2 {
		_, err := s.Checkpoint(t.Context()) // the next write starts the log over
		must(t, err)
		database := read(t, path)
		log := read(t, path+"-wal")
		var ends []int // of what is valid in the log, after each batch
		for range batches {
			must(t, landAll(t.Context(), s, token, from, from+size, size))
			from += size
			after := read(t, path+"-wal")
			ends = append(ends, changed(log, after))
			log = after
		}
		if string(read(t, path)) != string(database) {
			t.Fatal("a checkpoint of its own: this image is not what a power cut leaves")
		}
		step := ends[len(ends)-1]/25 + 1
		for cut := ends[0] / 2; cut <= ends[len(ends)-1]+step; cut += step {
			acknowledged := from - batches*size
			for _, end := range ends {
				if cut >= end {
					acknowledged += size
				}
			}
			name := fmt.Sprintf("round %d, log cut at %d of %v", round, cut, ends)
			image := filepath.Join(dir, fmt.Sprintf("image-%d-%d.db", round, cut))
			must(t, os.WriteFile(image, database, 0o600))
			must(t, os.WriteFile(image+"-wal", log[:min(cut, len(log))], 0o600))
			checkImage(t, name, image, acknowledged, size)
		}
	}
	must(t, s.Close())
}

// changed is where the log ends that a batch wrote: past it, was and is agree
// (the rest of an older, longer log), or nothing is.
func changed(was, is []byte) int {
	end := len(is)
	for end > 0 && end <= len(was) && was[end-1] == is[end-1] {
		end--
	}
	return end
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func checkImage(t *testing.T, name, path string, acknowledged, size int) {
	t.Helper()
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer func() { must(t, s.Close()) }()
	n := 0
	var last uint64
	marks, undelivered, err := s.Snapshot(t.Context(), "flash-1", func(o order.Order) error {
		n, last = n+1, o.Position.Position
		return nil
	})
	must(t, err)
	if uint64(n) != marks["wal"].Position || uint64(n) != last || len(undelivered) != n {
		t.Errorf("%s: %d orders, the last at %d, %d events, watermark %v", name, n, last, len(undelivered), marks["wal"])
	}
	if n < acknowledged || n%size != 0 {
		t.Errorf("%s: %d orders, %d were acknowledged in batches of %d", name, n, acknowledged, size)
	}
	// And it goes on from there.
	token, err := s.Fence(t.Context(), "wal")
	must(t, err)
	must(t, landAll(t.Context(), s, token, n, n+size, size))
}
