package main

const (
	book     = "internal/stock/book.go"
	settle   = "internal/stock/settle.go"
	adjust   = "internal/stock/adjust.go"
	replay   = "internal/stock/replay.go"
	board    = "internal/stock/board.go"
	ledger   = "internal/backend/walstock/ledger.go"
	commit   = "internal/backend/walstock/commit.go"
	snapshot = "internal/backend/walstock/snapshot.go"
	walWrite = "internal/lib/wal/commit.go"
	walMend  = "internal/lib/wal/recover.go"
	land     = "internal/backend/sqlstore/land.go"
	queue    = "internal/backend/sqlstore/outbox.go"
	relay    = "internal/lib/outbox/relay.go"
	timeout  = "internal/order/timeout.go"
	money    = "internal/order/money.go"
	late     = "internal/order/late.go"
	desk     = "internal/order/desk.go"
	purchase = "internal/sale/purchase.go"
	life     = "internal/sale/life.go"
	identity = "internal/gate/identity.go"
	auditor  = "internal/proof/proof.go"

	inStock = "./internal/stock ./internal/backend/walstock"
	inOrder = "./internal/order"
)

// mutants are the planted bugs. Those that other systems of this kind are known
// for stand first.
var mutants = []mutant{
	{"the last unit is never sold", book, "it.free < l.Quantity {\n\t\t\treturn nil, nil, it.short()", "it.free <= l.Quantity {\n\t\t\treturn nil, nil, it.short()", inStock, ""},
	{"one unit more than there is is sold", book, "it.free < l.Quantity {\n\t\t\treturn nil, nil, it.short()", "it.free+1 < l.Quantity {\n\t\t\treturn nil, nil, it.short()", inStock, ""},
	{"a limit lets one more pass", book, "has[i]+l.Quantity > it.PerUser", "has[i]+l.Quantity > it.PerUser+1", inStock, ""},
	{"the limit forgets what is paid", book, "if rec.State == Held || rec.State == Confirmed {", "if rec.State == Held {", inStock, ""},
	{"the window is not checked at its start", book, "case now < opens:", "case false:", inStock, ""},
	{"the window is open a millisecond too long", book, "now >= closes:", "now > closes:", inStock + " ./internal/sale", ""},
	{"a known key is checked after stock", book, "if known := b.known(newest, r.Key); known != nil {", "if known := b.known(newest, r.Key); known != nil && b.items[0].free > 0 {", inStock, ""},
	{"the same key with other terms is the first receipt", book, "if known.Fingerprint != r.Fingerprint {", "if false {", inStock, ""},
	{"a pass can be used twice", book, "b.claims[c] = struct{}{}\n\t}\n}", "_ = c\n\t}\n}", inStock, ""},
	{"stock grows with each retry of a release", settle, "if rec.State == s.Outcome || rec.State", "if rec.State == s.Outcome && s.Outcome != Released || rec.State", inStock, ""},
	{"a paid reservation can expire", settle, "Confirmed: {Returned},", "Confirmed: {Returned, Expired},", inStock, ""},
	{"a contradiction is swallowed", settle, "return rec.State, nil, fmt.Errorf(\"%w: %s is %s, asked for %s\", ErrOutcome, s.ID, rec.State, s.Outcome)", "return rec.State, nil, nil", inStock, ""},
	{"a delta is applied again when it is repeated", adjust, "b.adjusted[a.ID] = digestAdjustment(a)", "", inStock, ""},
	{"more units are taken back than are free", adjust, "it.free < -a.Delta {", "it.allocated < -a.Delta {", inStock, ""},
	{"replay skips an entry that does not follow", replay, "if e.Sequence != b.sequence+1 {", "if e.Sequence > b.sequence+2 {", inStock, ""},
	{"the board refuses a returning buyer", board, "|| f.holders.has(user) {", "{", inStock, ""},
	{"refusals rest on counts that are not durable", ledger, "acc.last = position\n", "acc.last = position\n\tacc.publish(position)\n", "./internal/backend/walstock", ""},
	{"acceptance is answered before the sync", ledger, "if b == nil {\n\t\tl.mu.Unlock()\n\t\treturn refusal", "if b == nil || e != nil {\n\t\tl.mu.Unlock()\n\t\treturn refusal", "./internal/backend/walstock", ""},
	{"a replay of the key is answered before the sync", ledger, "case acc.last <= l.shown:", "case true:", "./internal/backend/walstock", ""},
	{"a failed sync is answered as a refusal", commit, "b.err = fmt.Errorf(\"%w: %w\", stock.ErrUnknown, cause)", "b.err = fmt.Errorf(\"%w: %w\", stock.ErrSoldOut, cause)", "./internal/backend/walstock", ""},
	{"selling goes on after a failed sync", commit, "l.failed = fmt.Errorf(\"log: %w\", cause)", "", "./internal/backend/walstock", ""},
	{"a failed sync is tried again", walWrite, "if err := s.file.Sync(); err != nil {\n\t\treturn err\n\t}\n\tb.pos += n", "if s.file.Sync() != nil {\n\t\t_ = s.file.Sync()\n\t}\n\tb.pos += n", "./internal/lib/wal ./internal/backend/walstock", ""},
	{"the log is not synced at all", walWrite, "if err := s.file.Sync(); err != nil {\n\t\treturn err\n\t}\n\tb.pos += n", "b.pos += n", "./internal/lib/wal", ""},
	{"a torn batch is left in the file", walMend, "if s.tear != nil {\n\t\tif err := writeZeros(", "if false {\n\t\tif err := writeZeros(", "./internal/lib/wal", ""},
	{"a snapshot is taken for newer than it is", snapshot, "s := &state{position: binary.BigEndian.Uint64(p[len(snapshotMagic):])", "s := &state{position: 1 + binary.BigEndian.Uint64(p[len(snapshotMagic):])", "./internal/backend/walstock", ""},
	{"an older lander may go on writing", land, "AND token = ? AND epoch", "AND token >= ? AND epoch", "./internal/backend/sqlstore ./internal/order", ""},
	{"the watermark does not move with its rows", land, "SET epoch = ?, position = ? WHERE", "SET epoch = epoch + 0 * ?, position = position + 0 * ? WHERE", "./internal/backend/sqlstore", ""},
	{"events of landing are lost", land, "return insertMessage.all(c, l.messages)", "return nil", "./internal/backend/sqlstore ./internal/order", ""},
	{"a commit that was not heard of is made again", "internal/backend/sqlstore/transaction.go", "c.doubt = doubt", "c.doubt = false", "./internal/backend/sqlstore", "CommitWithoutAnswer"},
	{"a holder writes past the end of its lease", "internal/backend/sqlstore/leases.go", "if err := s.stands(c, *s.lease); err != nil {", "if err := s.stands(c, *s.lease); false {", "./internal/backend/sqlstore", "UnderALease"},
	{"a lease that ran out is renewed", "internal/backend/sqlstore/leases.go", "if err == nil && (!stands || have != g) {", "if err == nil && (!stands && false || have != g) {", "./internal/backend/sqlstore", "Lease"},
	{"an event overtakes one of its order that failed", queue, "WHERE NOT EXISTS (SELECT 1 FROM outbox_failed f WHERE f.msg_key = m.msg_key AND f.id < m.id)", "WHERE 1", "./internal/backend/sqlstore", ""},
	{"a failed event is forgotten", relay, "o.failed = true\n", "o.failed = true\n\t\to.done = append(o.done, lane[i].ID)\n", "./internal/backend/sqlstore", ""},
	{"the time-out cancels without looking again", timeout, "if o.State != Created {\n\t\t\treturn nil, 0, errUnchanged\n\t\t}", "o.State = Created", inOrder, "Timeout"},
	{"the time-out does not ask the provider", timeout, "if p.watched() && !answered[p.ID] {", "if p.watched() && !answered[p.ID] && false {", inOrder, "Timeout|Provider"},
	{"a paid callback after cancellation is dropped", money, "case late && o.Terms.LatePayment == pricing.RereserveOrRefund:\n\t\tc.Late, c.CheckAt = true, now", "case late && o.Terms.LatePayment == pricing.RereserveOrRefund:\n\t\tc.Late = true\n\t\treturn nil, \"\", nil", inOrder, "Late"},
	{"money of another amount pays", money, "case c.Amount.Amount != p.Amount.Amount:", "case c.Amount.Amount < p.Amount.Amount/100:", inOrder, ""},
	{"money of another currency pays", money, "case c.Amount.Currency != p.Amount.Currency:", "case false:", inOrder, ""},
	{"a second capture is kept", money, "\tdefault:\n\t\twhy = refundSecond\n\t}", "\tdefault:\n\t\tc.Pays = o.ID\n\t}", inOrder, ""},
	{"a callback counts each time it comes", money, "if o.Money.capture(c.ID) != nil {\n\t\t\tcontinue\n\t\t}", "", inOrder, ""},
	{"a late payment reserves anew with each try", late, "Key:         \"late:\" + c.Payment,", "Key:         \"late:\" + c.Payment + now.Time().String(),", inOrder, "Late"},
	{"an order that has not landed is a 404", desk, "if !errors.Is(err, ErrNoSuchOrder) {\n\t\td.tell", "if true {\n\t\td.tell", inOrder, ""},
	{"a limit counts what its owner has read to be over", desk, ">= recentChange {", ">= 0 {", inOrder, "Reading"},
	{"anybody's order can be read", desk, "if err == nil && o.User != user {", "if false {", inOrder, ""},
	{"a returning buyer meets the gate's refusals", purchase, "if face.Holds(r.User) {", "if false {", "./internal/sale", ""},
	{"the order of lines is taken for other terms", purchase, "if len(lines) > 1 {", "if false {", "./internal/sale", ""},
	{"a pause is saved and the ledger never told", life, "if want := a.phase(); phase != want {", "if want := a.phase(); phase != want && want == stock.Live {", "./internal/sale", ""},
	{"a token that has expired is remembered as good", identity, "if !v.now().Before(seen.identity.Expires) {", "if false {", "./internal/gate", ""},
	{"a token is known by its hash alone", identity, "seen != nil && seen.token == string(token) {", "seen != nil {", "./internal/gate", ""},
	{"the auditor takes any state of a cancelled order for right", auditor, "order.Cancelled: {stock.Released, stock.Expired},", "order.Cancelled: {stock.Released, stock.Expired, stock.Held},", "./internal/proof", ""},
	{"a capture that a poll has found is the last one", "internal/order/provider.go", "if p.CheckAt <= now { // else", "if true { // else", inOrder, "SecondCapture"},
	{"entries are read before they are synced", walWrite, "\tif err := s.file.Sync(); err != nil {\n\t\treturn err\n\t}\n\tb.pos += n\n\tb.next += uint64(count)\n\n\t// The mark first: a process killed after an acknowledgement has left it.\n\terr := l.mark.write(h.last())\n\tl.segMu.Lock()\n\ts.extend(s.end, h)\n\tl.durable.Store(s.last)\n\tl.segMu.Unlock()\n\treturn err", "\tb.pos += n\n\tb.next += uint64(count)\n\tl.segMu.Lock()\n\ts.extend(s.end, h)\n\tl.durable.Store(s.last)\n\tl.segMu.Unlock()\n\tif err := s.file.Sync(); err != nil {\n\t\treturn err\n\t}\n\treturn l.mark.write(h.last())", "./sim", "TestEveryPowerCut"},
	{"the watermark is in a transaction of its own", land, "err = s.writing(ctx, \"land\", l.write)", "if err := s.writing(ctx, \"land\", l.move); err != nil {\n\t\treturn err\n\t}\n\tl.From = l.To\n\terr = s.writing(ctx, \"land\", l.write)", "./sim", "TestEveryPowerCut"},
	{"an event is crossed out before it is handled", relay, "cause := r.handle(ctx, lane[i])", "_ = r.queue.Done(ctx, []int64{lane[i].ID})\n\t\tcause := r.handle(ctx, lane[i])", "./sim", "TestEveryPowerCut"},
	{"a snapshot takes entries that have not landed", snapshot, "upTo := l.trimmed.Load()", "upTo := l.log.Durable()", "./sim", "TestEveryPowerCut/a_full_segment"},
	{"the auditor does not look at limits", "internal/proof/limits.go", "\t\tl.judge(e.Reservation)\n", "", "./internal/proof", ""},
	{"a proof is final while an event is on its way", auditor, "!c.moving && len(undelivered) == 0 &&", "!c.moving &&", "./internal/proof ./sim", ""},
	{"the keeper's book is not asked", "internal/stock/judge.go", "\tdefer func() { b.sequence = e.Sequence }()", "\tif e.Kind == EntryReserved && e.Reservation.ID.Number == b.records.len()-b.carried+1 {\n\t\tb.sequence = e.Sequence\n\t\treturn b.replayReserved(e.Reservation, bad)\n\t}\n\tdefer func() { b.sequence = e.Sequence }()", "./internal/stock", ""},
	{"money that is being decided about is nobody's once more comes", "internal/proof/money.go", "= c.deciding[m.Payment] || m.Late //", "= m.Late //", "./internal/proof", ""},
	{"units that are needed now wait behind old moves", "internal/bucket/credits.go", "if a.fresh != b.fresh {", "if a.fresh != b.fresh && false {", "./internal/bucket", "MovesOfLongAgo"},
	{"an engine that cannot be asked for a moment is rebuilt", "internal/bucket/recover.go", "silentFor = 10 * time.Second", "silentFor = time.Second", "./internal/bucket", "CannotBeAsked"},
	{"an order is called lost at once", "internal/order/lost.go", "< lostAfter {", "< 0 {", inOrder, "Lost"},
	{"anybody is told that an order was lost", "internal/order/lost.go", "if !ok {", "if !ok && false {", inOrder, ""},
	{"a refused request is charged to the other limits", "internal/lib/limit/group.go", "if !v.Allowed || !charge {", "if !charge {", "./internal/lib/limit", ""},
}
