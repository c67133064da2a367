package wal

import (
	"errors"
	"os"
)

// Report is what Inspect found. Sizes are bytes.
type Report struct {
	Dir        string          `json:"dir"`
	First      uint64          `json:"first"` // first sequence number still in the log, 0 without segments
	Last       uint64          `json:"last"`  // last whole record, First-1 when there is none
	Records    uint64          `json:"records"`
	Batches    uint64          `json:"batches"`
	Bytes      int64           `json:"bytes"` // of records, with their lengths
	Size       int64           `json:"size"`  // of the segment files
	Mark       uint64          `json:"mark"`  // last sequence number known to be acknowledged
	HasMark    bool            `json:"has_mark"`
	Segments   []SegmentReport `json:"segments"`
	TornTail   *Tear           `json:"torn_tail,omitempty"`  // Open would cut this
	Corruption *CorruptError   `json:"corruption,omitempty"` // Open would refuse for this; counts end here
}

// SegmentReport is one segment of a Report.
type SegmentReport struct {
	Name  string `json:"name"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last"` // First-1 when it has no records
	Size  int64  `json:"size"` // of the file by its header, bytes
	Used  int64  `json:"used"` // header and batches, bytes
}

// Inspect reads a log without changing it. Damage is part of the report, not
// an error. Of a log that is in use it shows a moment, perhaps with the batch
// under way as a torn tail.
func Inspect(fsys FS, dir string) (Report, error) {
	s, err := scanDir(fsys, dir, os.O_RDONLY)
	defer s.close()
	r := Report{Dir: dir, Mark: s.mark.seq, HasMark: s.markSize >= 0, TornTail: s.tear,
		Records: s.records, Batches: s.batches, Bytes: s.payload, Segments: []SegmentReport{}}
	if err != nil && !errors.As(err, &r.Corruption) {
		return r, err
	}
	for _, seg := range s.segments {
		r.Segments = append(r.Segments, SegmentReport{seg.name, seg.first, seg.last, seg.size, seg.end})
		r.Size += seg.size
		r.Last = seg.last
	}
	if len(s.segments) > 0 {
		r.First = s.segments[0].first
	}
	return r, nil
}
