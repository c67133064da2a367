package storm

import "time"

// tornLimit is how many samples in a row may be of several moments.
const tornLimit = 5

// sample judges the server's own counts. Those of several buckets are read one
// after the other, and a unit that moves meanwhile may be counted in both: then
// they are more than there are, and nothing follows from them. ok says that they
// can be used. At rest there is no such excuse.
func (o *oracle) sample(i item, atRest bool) (ok bool) {
	adds := i.Free >= 0 && i.Held >= 0 && i.Confirmed >= 0 && i.InTransit >= 0 && i.Free+i.Held+i.Confirmed+i.InTransit == i.Allocated
	if torn := adds && o.buckets > 1 && i.Allocated > o.stock; torn && !atRest {
		if o.torn++; o.torn < tornLimit {
			return false
		}
	}
	o.torn = 0
	if i.Held+i.Confirmed > o.stock {
		o.broken.add("oversold by the server's own counts: %d held + %d confirmed of %d units", i.Held, i.Confirmed, o.stock)
	}
	if !adds || i.Allocated != o.stock {
		o.broken.add("the server's counts do not add up: %d free + %d held + %d confirmed + %d in transit of %d allocated, %d on sale",
			i.Free, i.Held, i.Confirmed, i.InTransit, i.Allocated, o.stock)
	}
	return true
}

// counted judges a sample of the counts beside what attempts were told. ok as
// for sample.
func (o *oracle) counted(g glimpse, i item, now time.Time) (ok bool) {
	o.mu.Lock()
	ok = o.sample(i, false)
	awaited := o.awaited
	o.mu.Unlock()
	if !ok {
		o.scarcity.missed()
		return false
	}
	if n, length := o.scarcity.sampled(g, i.Free, awaited, now); n > 0 {
		o.broken.add("false all_held or sold_out: %d attempts were refused although units had been free for %s, %d at the end", n, length.Round(time.Millisecond), i.Free)
	}
	return true
}

// proofSaid takes each violation that the server's proof tells once, whenever
// it does.
func (o *oracle) proofSaid(violations []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.proofTold(violations)
}

func (o *oracle) proofTold(violations []string) {
	for _, v := range violations {
		if !o.proofs[v] {
			o.proofs[v] = true
			o.broken.add("proof: %s", v)
		}
	}
}
