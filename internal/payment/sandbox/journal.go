package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// journal is an append-only file of lines "<crc32c> <length> <JSON array of
// records>", both numbers of the JSON and in 8 hex digits. The newest record
// of an id holds. Each line is one synced write, so only the last can be torn,
// and a torn line was never answered for. The length tells a torn line from
// one whose end is damaged and seems to run into the next.
type journal struct {
	file   *os.File
	broken error
}

const lineHeader = 18 // bytes before the JSON

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal reads all records, newest of each id, and opens for appending.
// It cuts a torn last line and refuses damage before it.
func openJournal(path string) (*journal, []*record, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	records, lines, good, err := readJournal(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	if lines > 100 && lines > 2*len(records) {
		if err := errors.Join(f.Close(), rewrite(path, records)); err != nil {
			return nil, nil, err
		}
		if f, err = os.OpenFile(path, os.O_RDWR, 0o600); err != nil {
			return nil, nil, err
		}
		_, err = f.Seek(0, io.SeekEnd)
	} else {
		err = errors.Join(f.Truncate(good), f.Sync(), syncDir(filepath.Dir(path)))
		if err == nil {
			_, err = f.Seek(good, io.SeekStart)
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return &journal{file: f}, records, nil
}

// readJournal answers the newest record of each id in order of first
// appearance, the number of lines, and where the last good line ends.
func readJournal(r io.Reader) (records []*record, lines int, good int64, err error) {
	at := make(map[string]int)
	in := bufio.NewReader(r)
	for {
		line, readErr := in.ReadBytes('\n')
		if readErr != nil && readErr != io.EOF {
			return nil, 0, 0, readErr
		}
		if len(line) == 0 {
			return records, lines, good, nil
		}
		batch, ok := decodeLine(line)
		if !ok {
			if _, more := in.Peek(1); more == nil || longer(line) {
				return nil, 0, 0, fmt.Errorf("damaged at byte %d; restore it from a backup, or move it away to begin with no payments", good)
			}
			return records, lines, good, nil
		}
		lines++
		good += int64(len(line))
		for _, rec := range batch {
			if i, known := at[rec.ID]; known {
				records[i] = rec
				continue
			}
			at[rec.ID] = len(records)
			records = append(records, rec)
		}
	}
}

func encodeLine(records []*record) ([]byte, error) {
	body, err := json.Marshal(records)
	if err != nil {
		return nil, err
	}
	line := fmt.Appendf(make([]byte, 0, lineHeader+len(body)+1), "%08x %08x ", crc32.Checksum(body, castagnoli), len(body))
	return append(append(line, body...), '\n'), nil
}

func decodeLine(line []byte) (records []*record, ok bool) {
	sum, length, ok := decodeHeader(line)
	if !ok || len(line) != lineHeader+length+1 || line[len(line)-1] != '\n' {
		return nil, false
	}
	body := line[lineHeader : lineHeader+length]
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, false
	}
	return records, json.Unmarshal(body, &records) == nil
}

func decodeHeader(line []byte) (sum uint32, length int, ok bool) {
	if len(line) < lineHeader || line[8] != ' ' || line[17] != ' ' {
		return 0, 0, false
	}
	c, err1 := strconv.ParseUint(string(line[:8]), 16, 32)
	n, err2 := strconv.ParseUint(string(line[9:17]), 16, 32)
	return uint32(c), int(n), err1 == nil && err2 == nil
}

// longer says that a bad last line holds more than its header announced, as no
// torn write does.
func longer(line []byte) bool {
	_, length, ok := decodeHeader(line)
	return ok && len(line) > lineHeader+length+1
}

// append writes records as one line and syncs it. After a failure the journal
// stays broken: a failed sync may have dropped what was written.
func (j *journal) append(records []*record) error {
	if j.broken != nil {
		return j.broken
	}
	line, err := encodeLine(records)
	if err == nil {
		_, err = j.file.Write(line)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.broken = fmt.Errorf("sandbox: journal: %w", err)
	}
	return j.broken
}

func (j *journal) close() error {
	if j.broken == nil {
		j.broken = errors.New("sandbox: closed")
	}
	return j.file.Close()
}

// rewrite replaces the file by one with a line for each record.
func rewrite(path string, records []*record) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	for _, r := range records {
		line, err := encodeLine([]*record{r})
		if err != nil {
			return errors.Join(err, f.Close())
		}
		if _, err := out.Write(line); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(out.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
