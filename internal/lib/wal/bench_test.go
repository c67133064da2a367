package wal

import (
	"fmt"
	"io/fs"
	"testing"
)

// The benchmarks run on the disk of the temporary directory.

var sink int

// unsynced is for filling a log quickly.
type unsynced struct{ FS }
type unsyncedFile struct{ File }

func (unsyncedFile) Sync() error { return nil }

func (u unsynced) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := u.FS.OpenFile(name, flag, perm)
	return unsyncedFile{f}, err
}

func BenchmarkStage(b *testing.B) {
	l := mustOpen(b, newDisk(), "d", Options{SegmentSize: 4 << 20, MaxStaged: 2 << 20})
	data := make([]byte, 150)
	for b.Loop() {
		if _, err := l.Stage(data); err != nil {
			l.mu.Lock()
			l.in.reset(1)
			l.mu.Unlock()
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1, 64, 512, 4096} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			l := mustOpen(b, OS(), b.TempDir(), Options{})
			defer l.Close()
			data := make([]byte, 150)
			for b.Loop() {
				for range size {
					if _, err := l.Stage(data); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := l.Commit(); err != nil {
					b.Fatal(err)
				}
				if err := l.TrimBefore(l.Durable()); err != nil {
					b.Fatal(err)
				}
				for {
					b.StopTimer()
					worked, err := l.Prepare()
					b.StartTimer()
					if err != nil {
						b.Fatal(err)
					}
					if !worked {
						break
					}
				}
			}
			records := float64(b.N * size)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/records, "ns/record")
			b.ReportMetric(records/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const records = 200_000
	for _, size := range []int{1, 64, 4096} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			l := mustOpen(b, unsynced{OS()}, b.TempDir(), Options{})
			defer l.Close()
			data := make([]byte, 150)
			for l.Staged() < records {
				for range size {
					if _, err := l.Stage(data); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := l.Commit(); err != nil {
					b.Fatal(err)
				}
			}
			report := func(b *testing.B) {
				b.ReportMetric(float64(b.N)*float64(l.Durable())/b.Elapsed().Seconds(), "records/s")
			}
			b.Run("all", func(b *testing.B) {
				for b.Loop() {
					for r, err := range l.Read(1) {
						if err != nil {
							b.Fatal(err)
						}
						sink += len(r.Data)
					}
				}
				report(b)
			})
			b.Run("start", func(b *testing.B) {
				at := l.Durable() / 2
				for b.Loop() {
					for r := range l.Read(at) {
						sink += len(r.Data)
						break
					}
					at++
				}
			})
		})
	}
}
