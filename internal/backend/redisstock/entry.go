package redisstock

import (
	"fmt"
	"strconv"
	"strings"

	"sluice/internal/stock"
)

// change is one entry of a bucket's stream with what followed from it.
type change struct {
	stock.Entry              // a reservation comes without its terms
	user        stock.UserID // whose reservation was made or settled
	terms       digest       // of a reservation
	after       []item       // the items it touched, as they were after it
	rules       *rules       // after an adjustment
}

// decode reads one entry of the bucket's stream; what is not one is
// stock.ErrCorrupt. Both landing and the followers read entries by this.
func decode(p stock.Place, id string, fields map[string]string) (c change, err error) {
	epoch, sequence, err := parseID(id)
	if err != nil {
		return change{}, err
	}
	c.Entry = stock.Entry{
		Cursor:   stock.Cursor{Log: p.Log(), Epoch: epoch, Position: sequence},
		Activity: p.Activity, Bucket: p.Bucket, Sequence: sequence,
	}
	c.user = stock.UserID(fields["u"])
	var failed bool
	switch {
	case fields["r"] != "":
		failed, err = c.reserved(p, fields)
	case fields["s"] != "":
		failed = c.settled(p, fields)
	case fields["a"] != "":
		failed, err = c.adjusted(fields)
	default:
		failed = true
	}
	if err == nil && failed {
		err = fmt.Errorf("%w: entry %s of %s does not decode", stock.ErrCorrupt, id, p.Log())
	}
	return c, err
}

func (c *change) reserved(p stock.Place, fields map[string]string) (failed bool, err error) {
	u := unpacker{p: fields["r"]}
	rec := u.record()
	r, terms, err := rec.reservation(p, c.user)
	if err != nil {
		return false, err
	}
	c.Kind, c.Reservation, c.terms = stock.EntryReserved, &r, terms
	return u.failed || c.touched(r.Lines, fields["c"]), nil
}

func (c *change) settled(p stock.Place, fields map[string]string) (failed bool) {
	s, l := unpacker{p: fields["s"]}, unpacker{p: fields["l"]}
	id := stock.ID{Activity: p.Activity, Bucket: p.Bucket, Epoch: uint32(s.int()), Number: uint64(s.int())}
	c.Kind, c.Settlement = stock.EntrySettled, &stock.Settlement{ID: id, Outcome: stock.State(s.int()), At: s.millis()}
	lines := l.lines()
	return s.failed || l.failed || c.touched(lines, fields["c"])
}

func (c *change) adjusted(fields map[string]string) (failed bool, err error) {
	var d stock.Decoder
	e, err := d.Entry([]byte(fields["a"]))
	if err != nil || e.Kind != stock.EntryAdjusted {
		return true, err
	}
	c.Kind, c.Adjustment = stock.EntryAdjusted, e.Adjustment
	at, err := strconv.ParseInt(fields["x"], 10, 64)
	c.Adjustment.At = stock.Millis(at)
	u := unpacker{p: fields["p"]}
	now := u.rules()
	c.rules = &now
	var lines []stock.Line
	if e.Adjustment.SKU != "" {
		lines = []stock.Line{{SKU: e.Adjustment.SKU}}
	}
	return err != nil || u.failed || c.touched(lines, fields["c"]), nil
}

func (c *change) touched(lines []stock.Line, packed string) (failed bool) {
	u := unpacker{p: packed}
	for _, l := range lines {
		c.after = append(c.after, u.item(l.SKU))
	}
	return u.failed || u.p != ""
}

// entryID is the stream's id of an entry, parseID its inverse.
func entryID(epoch uint32, sequence uint64) string {
	return strconv.FormatUint(uint64(epoch), 10) + "-" + strconv.FormatUint(sequence, 10)
}

func parseID(id string) (epoch uint32, sequence uint64, err error) {
	e, s, _ := strings.Cut(id, "-")
	n, err1 := strconv.ParseUint(e, 10, 32)
	sequence, err2 := strconv.ParseUint(s, 10, 64)
	if err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("%w: entry id %q", stock.ErrCorrupt, id)
	}
	return uint32(n), sequence, nil
}
