package simdisk

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"

	"sluice/internal/lib/wal"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, d *Disk, name string, flag int) wal.File {
	t.Helper()
	f, err := d.OpenFile(name, flag, 0o600)
	must(t, err)
	return f
}

func put(t testing.TB, f wal.File, off int64, b ...byte) {
	t.Helper()
	_, err := f.WriteAt(b, off)
	must(t, err)
}

// content is a file as the next process reads it, or "none".
func content(d *Disk, name string) string {
	f, err := d.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return "none"
	}
	size, _ := f.Size()
	b := make([]byte, size)
	_, _ = f.ReadAt(b, 0)
	return string(b)
}

// after lists the different contents of a file over all images.
func after(d *Disk, name string) (all []string) {
	for _, image := range d.Images(1, 100) {
		if c := content(image, name); !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	slices.Sort(all)
	return all
}

// fresh is a disk with a durable file d/a of these bytes.
func fresh(t testing.TB, b ...byte) (*Disk, wal.File) {
	t.Helper()
	d := New()
	must(t, d.MkdirAll("d", 0o700))
	f := open(t, d, "d/a", os.O_RDWR|os.O_CREATE)
	put(t, f, 0, b...)
	must(t, f.Sync())
	must(t, d.SyncDir("d"))
	return d, f
}

func TestWhatAPowerCutLeaves(t *testing.T) {
	f := func(name string, do func(t *testing.T, d *Disk, a wal.File), file string, want ...string) {
		t.Run(name, func(t *testing.T) {
			d, a := fresh(t, 'o')
			do(t, d, a)
			if got := after(d, file); !slices.Equal(got, want) {
				t.Errorf("%s may be %q, want %q", file, got, want)
			}
		})
	}
	f("synced", func(t *testing.T, _ *Disk, a wal.File) { put(t, a, 0, 'n'); must(t, a.Sync()) }, "d/a", "n")
	f("not synced", func(t *testing.T, _ *Disk, a wal.File) { put(t, a, 0, 'n') }, "d/a", "n", "o")
	f("between", func(t *testing.T, _ *Disk, a wal.File) { put(t, a, 0, 'm'); put(t, a, 0, 'n') }, "d/a", "m", "n", "o")
	f("grown", func(t *testing.T, _ *Disk, a wal.File) { put(t, a, 1, 'n') }, "d/a", "o", "o\x00", "on")
	f("truncated", func(t *testing.T, _ *Disk, a wal.File) { must(t, a.Truncate(0)) }, "d/a", "", "\x00", "o")
	f("O_TRUNC", func(t *testing.T, d *Disk, _ wal.File) { open(t, d, "d/a", os.O_RDWR|os.O_CREATE|os.O_TRUNC) }, "d/a", "", "\x00", "o")
	f("new file", func(t *testing.T, d *Disk, _ wal.File) {
		b := open(t, d, "d/b", os.O_RDWR|os.O_CREATE)
		put(t, b, 0, 'b')
		must(t, b.Sync())
	}, "d/b", "b", "none")
	f("new file in a synced directory", func(t *testing.T, d *Disk, _ wal.File) {
		put(t, open(t, d, "d/b", os.O_RDWR|os.O_CREATE), 0, 'b')
		must(t, d.SyncDir("d"))
	}, "d/b", "", "\x00", "b")
	f("renamed", func(t *testing.T, d *Disk, _ wal.File) { must(t, d.Rename("d/a", "d/b")) }, "d/b", "none", "o")
	f("renamed and synced", func(t *testing.T, d *Disk, _ wal.File) { must(t, d.Rename("d/a", "d/b")); must(t, d.SyncDir("d")) }, "d/b", "o")
	f("removed", func(t *testing.T, d *Disk, _ wal.File) { must(t, d.Remove("d/a")) }, "d/a", "none", "o")
	f("removed and synced", func(t *testing.T, d *Disk, _ wal.File) { must(t, d.Remove("d/a")); must(t, d.SyncDir("d")) }, "d/a", "none")
	f("the page cache lies", func(t *testing.T, d *Disk, a wal.File) {
		put(t, a, 0, 'n')
		d.Judge(func(o Op) Verdict {
			if o.Kind == Sync {
				return Verdict{Err: ErrIO}
			}
			return Verdict{}
		})
		if err := a.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		d.Judge(nil)
		if got := content(d, "d/a"); got != "n" {
			t.Fatalf("after a failed sync %q is read", got)
		}
		must(t, a.Sync()) // it succeeds, and changes nothing
	}, "d/a", "n", "o")
	f("written again after a failed sync", func(t *testing.T, d *Disk, a wal.File) {
		put(t, a, 0, 'n')
		d.Judge(func(Op) Verdict { return Verdict{Err: ErrIO} })
		_ = a.Sync()
		d.Judge(nil)
		put(t, a, 0, 'n')
		must(t, a.Sync())
	}, "d/a", "n")
	f("a sync whose answer was lost", func(t *testing.T, d *Disk, a wal.File) {
		put(t, a, 0, 'n')
		d.Judge(func(Op) Verdict { return Verdict{Err: ErrPower, Done: true} })
		if err := a.Sync(); !errors.Is(err, ErrPower) {
			t.Fatal(err)
		}
	}, "d/a", "n")
}

func TestTornSector(t *testing.T) {
	old := bytes.Repeat([]byte{'o'}, Sector)
	d, a := fresh(t, old...)
	put(t, a, 0, bytes.Repeat([]byte{'n'}, Sector)...)
	torn := 0
	for _, c := range after(d, "d/a") {
		if c[0] != c[Sector-1] {
			torn++
		}
	}
	if torn != 2 {
		t.Errorf("%d torn images, want both halves", torn)
	}
}

// Up to ten sectors every subset is among the images; above, samples that
// depend on the seed only.
func TestSubsets(t *testing.T) {
	f := func(sectors, want int) {
		t.Helper()
		d, a := fresh(t, make([]byte, sectors*Sector)...)
		put(t, a, 0, bytes.Repeat([]byte{1}, sectors*Sector)...)
		whole := map[string]bool{}
		all := 0
		for _, image := range d.Images(7, 50) {
			all++
			c := content(image, "d/a")
			set := ""
			for i := range sectors {
				if c[i*Sector] != c[i*Sector+Sector-1] {
					set = ""
					break
				}
				set += string(c[i*Sector])
			}
			if set != "" {
				whole[set] = true
			}
		}
		if want > 0 && len(whole) != want {
			t.Errorf("%d sectors: %d subsets, want %d", sectors, len(whole), want)
		}
		if want == 0 && all != 52 {
			t.Errorf("%d sectors: %d images, want 52", sectors, all)
		}
	}
	f(1, 2)
	f(5, 32)
	f(10, 1024)
	f(11, 0)

	d, a := fresh(t, make([]byte, 40*Sector)...)
	put(t, a, 0, bytes.Repeat([]byte{1}, 40*Sector)...)
	for range 2 {
		if x, y := d.Image(Random(rand.New(rand.NewPCG(3, 0)))), d.Image(Random(rand.New(rand.NewPCG(3, 0)))); content(x, "d/a") != content(y, "d/a") {
			t.Error("the same seed gives other images")
		}
	}
}

func TestFaults(t *testing.T) {
	d, a := fresh(t, 'o')
	d.Judge(func(o Op) Verdict {
		if o.Kind == Write {
			return Verdict{Err: ErrIO, Bytes: 2}
		}
		return Verdict{}
	})
	if n, err := a.WriteAt([]byte("abc"), 0); n != 2 || !errors.Is(err, syscall.EIO) || content(d, "d/a") != "ab" {
		t.Errorf("short write: %d, %v, %q", n, err, content(d, "d/a"))
	}
	d.Judge(nil)
	d.Fill(3)
	if n, err := a.WriteAt([]byte("12345678"), 1); n != 4 || !errors.Is(err, syscall.ENOSPC) || content(d, "d/a") != "a1234" {
		t.Errorf("full disk: %d, %v, %q", n, err, content(d, "d/a"))
	}
	if n, err := a.WriteAt([]byte("xy"), 0); n != 2 || err != nil {
		t.Errorf("a full disk takes what needs no room: %d, %v", n, err)
	}
	d.Fill(-1)
	put(t, a, 5, '5')

	stalled := false
	d.Judge(func(o Op) Verdict {
		if !stalled {
			stalled = true
			put(t, a, 0, 's') // another operation gets in between
		}
		return Verdict{}
	})
	put(t, a, 1, 't')
	if got := content(d, "d/a"); got != "st2345" {
		t.Errorf("after a stall: %q", got)
	}
	d.Judge(nil)

	image := d.Kill()
	d.Off()
	_, err := d.OpenFile("d/a", os.O_RDONLY, 0)
	_, err2 := a.WriteAt([]byte{1}, 0)
	_, err3 := d.ReadDir("d")
	for _, err := range []error{err, err2, err3, a.Sync(), a.Truncate(0), d.SyncDir("d"), d.Remove("d/a"), d.Rename("d/a", "d/b")} {
		if !errors.Is(err, ErrPower) {
			t.Errorf("without power: %v", err)
		}
	}
	if got := content(image, "d/a"); got != "st2345" {
		t.Errorf("the next process reads %q", got)
	}
	if _, err := image.OpenFile("d/none", os.O_RDWR, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A file that is removed or replaced stays readable for those who have it open.
func TestOpenFilesOutliveTheirNames(t *testing.T) {
	d, a := fresh(t, 'o')
	must(t, d.Remove("d/a"))
	b := make([]byte, 1)
	if _, err := a.ReadAt(b, 0); err != nil || b[0] != 'o' {
		t.Error(b, err)
	}
	if names, err := d.ReadDir("d"); err != nil || len(names) != 0 {
		t.Error(names, err)
	}
}
