package main

import "sluice/test/overlay"

// when is the part of a server's life in which a point is passed.
type when int

const (
	serving  when = iota // under load
	starting             // at every start
	founding             // at the first start on a directory
	stopping             // after SIGTERM
)

func (w when) String() string { return [...]string{"serving", "starting", "founding", "stopping"}[w] }

// place is a named point at which the server can be killed: right before or
// after a piece of text of one file.
type place struct {
	name   string
	when   when
	most   int // the kill is at the 1st to most-th pass
	file   string
	where  overlay.Where
	anchor string
	call   string // what is put there; "" = a plain call
}

// edit is the call of the point, put in its place.
func (p place) edit() overlay.Edit {
	call := p.call
	if call == "" {
		call = "point.Pass(" + quote(p.name) + ")\n"
	}
	return overlay.Edit{Name: p.name, File: p.file, Anchor: p.anchor, Where: p.where, Text: call}
}

// deferred puts the point at the end of the function whose first line is the anchor.
func deferred(name string) string { return "defer point.Pass(" + quote(name) + ")\n" }

const (
	walCommit  = "internal/lib/wal/commit.go"
	walLog     = "internal/lib/wal/log.go"
	walRecover = "internal/lib/wal/recover.go"
	committer  = "internal/backend/walstock/commit.go"
	ledger     = "internal/backend/walstock/ledger.go"
	snapshot   = "internal/backend/walstock/snapshot.go"
	landRows   = "internal/backend/sqlstore/land.go"
	writer     = "internal/backend/sqlstore/writer.go"
	store      = "internal/backend/sqlstore/store.go"
	landing    = "internal/order/landing.go"
	provider   = "internal/order/provider.go"
	money      = "internal/order/money.go"
	desk       = "internal/order/desk.go"
	timeout    = "internal/order/timeout.go"
	late       = "internal/order/late.go"
	refund     = "internal/order/refund.go"
	settlement = "internal/order/settlement.go"
	relay      = "internal/lib/outbox/relay.go"
	proofWatch = "internal/proof/watch.go"
	purchases  = "internal/api/purchases.go"
	payments   = "internal/api/payments.go"
	appRun     = "internal/app/run.go"
	roles      = "internal/app/roles.go"
	doors      = "internal/app/doors.go"
	gateKey    = "internal/gate/key.go"
	callbacks  = "internal/payment/sandbox/callbacks.go"
	actions    = "internal/payment/sandbox/actions.go"
	journal    = "internal/payment/sandbox/journal.go"
)

// places are the points, in the order in which a purchase meets them.
var places = []place{
	{"api: decided, reply not written", serving, 40, purchases, overlay.Before, "\ts.accept(ctx, a, &receipt)\n", ""},
	{"api: refused, reply not written", serving, 40, purchases, overlay.Before, "\ts.remember(ctx, a.activity, a.who.User, c, err)\n", ""},
	{"api: payment started, reply not written", serving, 20, payments, overlay.Before, "\ts.replyJSON(ctx, fasthttp.StatusCreated", ""},

	{"log: batch taken, nothing written", serving, 40, committer, overlay.Before, "\t_, err = l.log.Commit()\n", ""},
	{"log: frame written, not synced", serving, 40, walCommit, overlay.Before, "\tif err := s.file.Sync(); err != nil {\n\t\treturn err\n\t}\n\tb.pos += n\n", ""},
	{"log: synced, not marked", serving, 40, walCommit, overlay.Before, "\tb.pos += n\n", ""},
	{"log: durable, nobody answered", serving, 40, committer, overlay.After, "\t_, err = l.log.Commit()\n", ""},
	{"log: counts shown, nobody answered", serving, 40, committer, overlay.Before, "\tclose(b.done)\n\tsignal(l.advanced)\n", ""},
	{"segment: piece of the next one prepared", serving, 1, walCommit, overlay.Before, "\tl.ready += n\n", ""},
	{"segment: headed, not renamed", serving, 1, walCommit, overlay.Before, "\tif err := l.fsys.Rename(l.path(spareName), l.path(name)); err != nil {\n", ""},
	{"segment: renamed, directory not synced", serving, 1, walCommit, overlay.Before, "\tif err := l.fsys.SyncDir(l.dir); err != nil {\n\t\treturn nil, err\n", ""},
	{"segment: in place, empty", serving, 1, walCommit, overlay.Before, "\tl.segMu.Lock()\n\tl.segs = append(l.segs, s)\n", ""},
	{"snapshot: partly written", serving, 2, snapshot, overlay.After, "\tfor _, activity := range slices.Sorted(maps.Keys(s.books)) {\n", ""},
	{"snapshot: written, not synced", serving, 2, snapshot, overlay.After, "\twrite(binary.BigEndian.AppendUint32(nil, sum.Sum32()))\n", ""},
	{"snapshot: synced, not renamed", serving, 2, snapshot, overlay.Before, "\tif err := l.o.FS.Rename(temp, ", ""},
	{"snapshot: renamed, directory not synced", serving, 2, snapshot, overlay.Before, "\treturn l.o.FS.SyncDir(l.dir)\n", ""},
	{"snapshot: old one removed", serving, 1, snapshot, overlay.Before, "\t\tnames = names[1:]\n", ""},
	{"trim: segment about to go", serving, 1, walCommit, overlay.Before, "\t\tif err := l.fsys.Remove(l.path(oldest.name)); err != nil {\n", ""},
	{"trim: segment gone, directory not synced", serving, 1, walCommit, overlay.Before, "\t\t// One at a time, or a power cut", ""},

	{"landing: batch taken, store not asked", serving, 30, landing, overlay.Before, "\tif err := l.Store.Land(ctx, b.Batch); err != nil {\n", ""},
	{"landing: rows written, not committed", serving, 30, landRows, overlay.After, "func (l *landing) insert(c *conn) error {\n", deferred("landing: rows written, not committed")},
	{"landing: committed, nobody told", serving, 30, landing, overlay.Before, "\tnow := l.Now()\n\ttook := now.Sub(began)\n", ""},
	{"landing: readers told, watchers not", serving, 30, landing, overlay.Before, "\tif l.Landing.Landed != nil && len(b.Orders) > 0 {\n", ""},
	{"store: about to commit", serving, 60, writer, overlay.Before, "\tif _, err := c.exec(\"COMMIT\"); err != nil {\n", ""},
	{"store: committed, nobody answered", serving, 60, writer, overlay.Before, "\tw.writes.Add(uint64(len(group)))\n", ""},
	{"store: log moved into the database", serving, 5, store, overlay.Before, "\t\tworked = moved != *s.ckpt && moved > 0\n", ""},

	{"payment: id saved, provider not called", serving, 20, provider, overlay.Before, "\tat := c.provider(p.Provider)\n\tcall, cancel", ""},
	{"payment: provider answered, not saved", serving, 20, provider, overlay.Before, "\tif failed != nil && !errors.Is(failed, payment.ErrRefused) {\n", ""},
	{"payment: answer saved, shopper not told", serving, 20, provider, overlay.Before, "\tswitch {\n\tcase err != nil:\n\t\treturn \"\", err\n\tcase failed != nil:\n", ""},
	{"provider: payment started, not journaled", serving, 20, "internal/payment/sandbox/payments.go", overlay.Before, "\treturn r, s.save(r)\n", ""},
	{"provider: button pressed, not journaled", serving, 20, actions, overlay.Before, "\tif err := s.save(r); err != nil {\n\t\treturn old, err\n", ""},
	{"provider: button journaled, not answered", serving, 20, actions, overlay.Before, "\ts.schedule(r, old)\n\treturn r, nil\n", ""},
	{"provider: line written, not synced", serving, 30, journal, overlay.Before, "\tif err == nil {\n\t\terr = j.file.Sync()\n", ""},
	{"provider: callback not sent", serving, 15, callbacks, overlay.Before, "\tresp, err := s.callback.Do(req)\n", ""},
	{"provider: callbacks answered, not noted", serving, 10, callbacks, overlay.Before, "\treturn true, s.finish(ctx, calls, failures)\n", ""},
	{"callback: read, not applied", serving, 15, desk, overlay.Before, "\t_, err = d.cashier.Apply(ctx, id, st)\n", ""},
	{"callback: applied, provider not answered", serving, 15, desk, overlay.After, "\t_, err = d.cashier.Apply(ctx, id, st)\n", ""},
	{"money: received, not committed", serving, 15, money, overlay.Before, "\tif why != \"\" {\n\t\to.giveBack(c.ID, why, now)\n", ""},
	{"paid: committed, ledger not told", serving, 15, provider, overlay.After, "\tif was == Created && is.State == Paid {\n", ""},
	{"poll: provider answered, not saved", serving, 4, provider, overlay.Before, "\tunknown := errors.Is(failed, payment.ErrNoSuchPayment)\n", ""},

	{"cancel: decided, not committed", serving, 10, desk, overlay.Before, "\t\treturn Transition(o, ActionCancel, ReasonShopper, now)\n", ""},
	{"cancel: committed, ledger not told", serving, 10, desk, overlay.Before, "\t// Whoever cancels often wants to buy something else at once.\n", ""},
	{"time-out: provider asked, not decided", serving, 10, timeout, overlay.Before, "\tif o.State == Created {\n\t\tif o, err = k.expire(", ""},
	{"time-out: decided, not committed", serving, 10, timeout, overlay.After, "\t\tevents, err := Transition(o, ActionTimeout, \"\", now)\n", ""},
	{"time-out: committed, ledger not told", serving, 10, timeout, overlay.After, "\t\tif o.State == Cancelled {\n", ""},
	{"settle: ledger not asked", serving, 30, settlement, overlay.Before, "\tstands, err := s.ledger.Settle(", ""},
	{"settle: ledger answered", serving, 30, settlement, overlay.Before, "\tif errors.Is(err, stock.ErrOutcome) {\n\t\ts.violated(", ""},
	{"late: first reservation ended, no second", serving, 1, late, overlay.Before, "\tterms, err := json.Marshal(o.Terms)\n", ""},
	{"late: reserved again, not saved", serving, 1, late, overlay.After, "\t\t\treceipt, err := l.reserve(ctx, o, c)\n", ""},
	{"late: saved", serving, 1, late, overlay.Before, "\tswitch {\n\tcase asked == nil:\n\t\tl.log.Info(", ""},
	{"refund: saved, provider not asked", serving, 4, refund, overlay.Before, "\tvar got payment.RefundState\n", ""},
	{"refund: provider answered, not saved", serving, 4, refund, overlay.Before, "\tfinal := errors.Is(failed, payment.ErrRefused)", ""},

	{"relay: message read, not handled", serving, 30, relay, overlay.Before, "\t\tcause := r.handle(ctx, lane[i])\n", ""},
	{"relay: before a handler", serving, 40, relay, overlay.Before, "\t\tif err := r.call(ctx, h, m); err != nil {\n", ""},
	{"relay: handled, not marked", serving, 30, relay, overlay.Before, "\t\tif err := r.queue.Done(ctx, done); err != nil {\n", ""},
	{"relay: marked", serving, 30, relay, overlay.Before, "\t\tr.delivered.Add(uint64(len(done)))\n", ""},
	{"proof: books compared, not reported", serving, 2, proofWatch, overlay.Before, "\tw.resting = f.tried.Add((", ""},

	{"start: directory locked, no port taken", starting, 1, appRun, overlay.Before, "\tat, err := listen(c, log)\n", ""},
	{"start: store not migrated", starting, 1, store, overlay.Before, "\tdone, err := m.Up(ctx)\n", ""},
	{"start: store migrated, not open", starting, 1, store, overlay.After, "\tdone, err := m.Up(ctx)\n", ""},
	{"start: store open, ledger not", starting, 1, doors, overlay.Before, "\tbegan := time.Now()\n\tvar newest uint64", ""},
	{"start: log read, not mended", starting, 1, walRecover, overlay.Before, "\tif err := l.recover(s); err != nil {\n", ""},
	{"start: log mended, not marked", starting, 1, walRecover, overlay.Before, "\tl.mark, err = openMark(", ""},
	{"start: snapshot read, log not replayed", starting, 1, snapshot, overlay.Before, "\tif err := s.follow(l, position); err != nil {\n", ""},
	{"start: books replayed, not shown", starting, 1, ledger, overlay.Before, "\tfor activity, book := range state.books {\n", ""},
	{"start: doors open, nothing runs", starting, 1, appRun, overlay.Before, "\te, err := newEngine(", ""},
	{"start: provider's journal open", starting, 1, journal, overlay.Before, "\treturn &journal{file: f}, records, nil\n", ""},
	{"start: fence taken, nothing landed", starting, 1, landing, overlay.Before, "\tif l.placed {\n\t\treturn nil\n", ""},
	{"start: tasks run, activities not shown", starting, 1, appRun, overlay.Before, "\tif err := e.store.Ping(ctx); err != nil {\n", ""},
	{"first start: piece of a segment prepared", founding, 1, walCommit, overlay.After, "\tn := min(int64(len(zeros)), l.opt.SegmentSize-l.ready)\n", ""},
	{"first start: key written, not published", founding, 1, gateKey, overlay.Before, "\tif err := os.Link(temp.Name(), path); err != nil {\n", ""},
	{"first start: key published, not synced", founding, 1, gateKey, overlay.Before, "\treturn syncDir(dir)\n", ""},

	{"stop: told, still answering", stopping, 1, appRun, overlay.Before, "\t\tgateway.Drain()\n", ""},
	{"stop: draining", stopping, 1, appRun, overlay.Before, "\t\treturn gateway.Shutdown(ctx)\n", ""},
	{"stop: tasks ended, provider open", stopping, 1, roles, overlay.Before, "\te.provider.Close()\n", ""},
	{"stop: last batch not committed", stopping, 1, ledger, overlay.Before, "\t_, err := l.Commit(context.Background())\n", ""},
	{"stop: last batch committed, log open", stopping, 1, walLog, overlay.Before, "\terr := errors.Join(l.mark.file.Sync(), ", ""},
	{"stop: log closed, database open", stopping, 1, store, overlay.Before, "\treturn errors.Join(append(errs, s.write.db.Close())...)\n", ""},
}

// sizes make a short storm meet what otherwise takes days: segments of 128 KiB
// of which three are kept for the trails, a snapshot every 400 entries, looked
// for every 200 ms, an audit each second.
var sizes = []overlay.Edit{
	{Name: "small segments", File: ledger, Anchor: "\to.SegmentSize = orDefault(o.SegmentSize, 64<<20)\n",
		Text: "\to.SegmentSize = orDefault(o.SegmentSize, 128<<10)\n\to.KeepLog = min(o.KeepLog, 384<<10)\n"},
	{Name: "many snapshots", File: ledger, Anchor: "orDefault(o.SnapshotAt, 500_000)", Text: "orDefault(o.SnapshotAt, 400)"},
	{Name: "snapshots at once", File: roles, Anchor: "Step: e.compact, Idle: 10 * time.Second", Text: "Step: e.compact, Idle: 200 * time.Millisecond"},
	{Name: "frequent audits", File: proofWatch, Anchor: "Interval = 5 * time.Second", Text: "Interval = time.Second"},
}

// plant is a bug put into the server, to see that the harness reports it.
type plant struct {
	name  string
	edits []overlay.Edit
}

// plants are bugs that only a kill brings to light.
var plants = []plant{
	{"answers from memory, the log every 20 ms", []overlay.Edit{
		{Name: "answers from memory", File: ledger, Anchor: "if b == nil {\n\t\tl.mu.Unlock()\n\t\treturn refusal", Text: "if b == nil || e != nil {\n\t\tl.mu.Unlock()\n\t\treturn refusal"},
		{Name: "the log every 20 ms", File: committer, Anchor: "\tbefore := -1\n", Where: overlay.Before, Text: "\ttime.Sleep(20 * time.Millisecond)\n"},
		{Name: "import", File: committer, Anchor: "\t\"runtime\"\n", Where: overlay.After, Text: "\t\"time\"\n"},
	}},
	{"the watermark in a transaction of its own", []overlay.Edit{
		{Name: "two transactions", File: landRows, Anchor: "\terr = s.writing(ctx, \"land\", l.write)\n",
			Text: "\tif err := s.writing(ctx, \"watermark\", l.move); err != nil {\n\t\treturn err\n\t}\n\terr = s.writing(ctx, \"land\", l.insert)\n"},
		{Name: "the old one is used", File: landRows, Anchor: "// write is the whole transaction.\n", Where: overlay.Before, Text: "var _ = (*landing).write\n\n"},
	}},
}
