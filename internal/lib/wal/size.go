package wal

// Size is what the segment files take, in bytes; the one being prepared is not
// among them.
func (l *Log) Size() (bytes int64) {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	for _, s := range l.segs {
		bytes += s.size
	}
	return bytes
}

// Within is the first record of the newest segments that together take at most
// so many bytes; the active one is always among them. TrimBefore it brings the
// log back to that size.
func (l *Log) Within(bytes int64) (first uint64) {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	for i := len(l.segs) - 1; i >= 0; i-- {
		if bytes -= l.segs[i].size; bytes < 0 && first != 0 {
			break
		}
		first = l.segs[i].first
	}
	return first
}
