package walstock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/internal/stock"
)

// A snapshot is the state of all books at one log position. It is made from
// the snapshot before it and the log, not from the books in use: so it costs
// the ledger no pause, and each one repeats a part of the recovery.
//
// File "snapshot-<position>": magic, position, number of books, then each
// book's length and bytes, and a CRC-32C of all before it. It is written under
// another name and renamed, so a snapshot that has its name is whole. Two are
// kept, with the log after the older, so that a rotten one is survived.

const snapshotMagic = "SLUICESN"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// state is what a snapshot or a replay amounts to.
type state struct {
	position uint64
	books    stock.Books
	decoder  stock.Decoder
}

// Replica answers books as they were at a position: at least the newest
// snapshot's, and as far as upTo. It shares nothing with the ledger.
func (l *Ledger) Replica(ctx context.Context, upTo stock.Cursor) (map[stock.ActivityID]*stock.Book, error) {
	l.compaction.Lock() // a snapshot being written could trim what is being read
	defer l.compaction.Unlock()
	s, err := l.replayTo(min(upTo.Position, l.log.Durable()))
	if err != nil {
		return nil, err
	}
	return s.books, ctx.Err()
}

// replayTo rebuilds the state at a durable position from the newest readable
// snapshot that is not past it.
func (l *Ledger) replayTo(position uint64) (*state, error) {
	names, err := l.snapshots()
	if err != nil {
		return nil, err
	}
	s := &state{books: stock.Books{}}
	for _, name := range slices.Backward(names) {
		if at, _ := snapshotPosition(name); at > position {
			continue
		}
		loaded, err := l.readSnapshot(name)
		if err == nil {
			s = loaded
			break
		}
		l.o.Log.Error("a snapshot cannot be read; an older one or the log itself is used instead", "file", name, "error", err)
	}
	if err := s.follow(l, position); err != nil {
		return nil, err
	}
	l.snapshot.Store(max(l.snapshot.Load(), newest(names)))
	return s, nil
}

// follow replays the log up to a position, which must be durable.
func (s *state) follow(l *Ledger, position uint64) error {
	if s.position >= position {
		return nil
	}
	if s.position+1 < l.log.First() {
		return fmt.Errorf("%w: the log starts at %d and no readable snapshot reaches it; restore the data directory from a backup",
			stock.ErrTruncated, l.log.First())
	}
	for rec, err := range l.log.Read(s.position + 1) {
		if err != nil {
			return err
		}
		if rec.Seq > position {
			break
		}
		if err := s.replay(rec.Data); err != nil {
			return fmt.Errorf("log record %d: %w; restore the data directory from a backup", rec.Seq, err)
		}
		s.position = rec.Seq
	}
	return nil
}

func (s *state) replay(data []byte) error {
	e, err := s.decoder.Entry(data)
	if err != nil {
		return err
	}
	return s.books.Replay(e)
}

// Compact is the snapshot task's step: when enough entries have been taken by
// every consumer since the newest snapshot, it writes another (worked), and it
// lets the log go that neither the older of two snapshots nor the trail of an
// activity needs.
func (l *Ledger) Compact(context.Context) (worked bool, err error) {
	l.compaction.Lock()
	defer l.compaction.Unlock()
	if upTo := l.trimmed.Load(); upTo >= l.snapshot.Load()+l.o.SnapshotAt {
		if err = l.snapshotTo(upTo); err != nil {
			err = fmt.Errorf("snapshot: %w", err)
		}
		worked = err == nil
	}
	return worked, errors.Join(err, l.forget()) // where there is no room for a snapshot, this makes some
}

func (l *Ledger) snapshotTo(position uint64) error {
	s, err := l.replayTo(position)
	if err == nil {
		err = l.writeSnapshot(s)
	}
	if err == nil {
		l.snapshot.Store(s.position)
	}
	return err
}

// forget removes all but the two newest snapshots, and the log that nothing
// needs without them.
func (l *Ledger) forget() error {
	names, err := l.snapshots()
	if err != nil {
		return err
	}
	for len(names) > 2 {
		if err := l.o.FS.Remove(filepath.Join(l.dir, names[0])); err != nil {
			return err
		}
		names = names[1:]
	}
	if len(names) < 2 {
		return nil
	}
	oldest, _ := snapshotPosition(names[0])
	return l.trim(oldest + 1)
}

// snapshots lists the snapshot files, oldest first.
func (l *Ledger) snapshots() ([]string, error) {
	names, err := l.o.FS.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { _, ok := snapshotPosition(n); return !ok })
	slices.Sort(names)
	return names, nil
}

func newest(names []string) uint64 {
	if len(names) == 0 {
		return 0
	}
	at, _ := snapshotPosition(names[len(names)-1])
	return at
}

func snapshotName(position uint64) string { return fmt.Sprintf("snapshot-%020d", position) }

func snapshotPosition(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, "snapshot-")
	if !ok || len(digits) != 20 {
		return 0, false
	}
	var at uint64
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, false
		}
		at = at*10 + uint64(c-'0')
	}
	return at, true
}

func (l *Ledger) writeSnapshot(s *state) error {
	temp := filepath.Join(l.dir, "snapshot.new")
	f, err := l.o.FS.OpenFile(temp, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	var at int64
	sum := crc32.New(castagnoli)
	write := func(p []byte) {
		if err == nil {
			_, err = f.WriteAt(p, at)
			at += int64(len(p))
			sum.Write(p)
		}
	}
	head := append([]byte(snapshotMagic), make([]byte, 0, 16)...)
	head = binary.BigEndian.AppendUint64(head, s.position)
	write(binary.BigEndian.AppendUint64(head, uint64(len(s.books))))
	for _, activity := range slices.Sorted(maps.Keys(s.books)) {
		p := s.books[activity].AppendSnapshot(make([]byte, 8, 1<<16))
		binary.BigEndian.PutUint64(p, uint64(len(p)-8))
		write(p)
	}
	write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := l.o.FS.Rename(temp, filepath.Join(l.dir, snapshotName(s.position))); err != nil {
		return err
	}
	return l.o.FS.SyncDir(l.dir)
}

func (l *Ledger) readSnapshot(name string) (_ *state, err error) {
	f, err := l.o.FS.OpenFile(filepath.Join(l.dir, name), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	bad := fmt.Errorf("%w: snapshot %s", stock.ErrCorrupt, name)
	const head, tail = len(snapshotMagic) + 16, 4
	if size < int64(head+tail) {
		return nil, bad
	}
	p := make([]byte, size)
	if _, err := f.ReadAt(p, 0); err != nil {
		return nil, err
	}
	body := p[:size-tail]
	if string(p[:len(snapshotMagic)]) != snapshotMagic || crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(p[size-tail:]) {
		return nil, bad
	}
	s := &state{position: binary.BigEndian.Uint64(p[len(snapshotMagic):]), books: stock.Books{}}
	count := binary.BigEndian.Uint64(p[len(snapshotMagic)+8:])
	for body = body[head:]; count > 0 && len(body) >= 8; count-- {
		n := binary.BigEndian.Uint64(body)
		if n > uint64(len(body)-8) {
			return nil, bad
		}
		book, err := s.decoder.Snapshot(body[8 : 8+n])
		if err != nil {
			return nil, err
		}
		s.books[book.Allocation().Activity] = book
		body = body[8+n:]
	}
	if count != 0 || len(body) != 0 {
		return nil, bad
	}
	return s, nil
}
