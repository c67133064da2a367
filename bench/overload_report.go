package main

import (
	"fmt"
	"strings"
	"time"
)

// overloadGoal is the share of the peak that is to be left at the highest factor.
const overloadGoal = 0.9

// overloadSection is the curve in words and tables; nothing when it was not measured.
func (r *results) overloadSection(b *strings.Builder) {
	if len(r.overload) == 0 {
		return
	}
	b.WriteString(`
## Overload

People who look at their orders (` + "`GET /v1/orders`" + `) come by the clock, whatever becomes of those before them: at random times
(Poisson), so many times as often as the shop can serve. Nobody comes again after a refusal. *Served* is who has an
answer within a second of when it was due; latencies are from then, too. Beside them ` + fmt.Sprintf("%.0f", float64(time.Second)/float64(payEvery)) + ` people a second pay: they start a
payment, press the provider's button, and look at the order until it is paid.

`)
	b.WriteString("| overloaded | it serves | CPU µs, served | CPU µs, refused | goodput at 20 × | goal | met | payers who paid |\n|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.overload {
		last := s.steps[len(s.steps)-1]
		share := last.goodput() / s.peak()
		refusal := "—"
		if r := s.refusal(); r > 0 {
			refusal = fmt.Sprintf("%.1f", r)
		}
		fmt.Fprintf(b, "| %s | %.0f/s | %.1f | %s | **%.0f %%** of the peak | ≥ %.0f %% | %s | %s |\n", s.name, s.capacity, s.cost, refusal,
			100*share, 100*overloadGoal, map[bool]string{true: "yes", false: "no"}[share >= overloadGoal], percent(last.payers.share()))
	}
	for _, s := range r.overload {
		s.table(b)
	}
	r.arithmetic(b)
}

// table is the curve of one scene.
func (s *scene) table(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n", capital(s.name), s.about)
	b.WriteString("| offered | a second | served | of the peak | refused | no answer | p50, p99 ms | server's core | other core | paid | starts of payments: served, p99 ms | looks after paying: served, p99 ms |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, one := range s.steps {
		fmt.Fprintf(b, "| %g × | %.0f | %.0f | %.0f %% | %.0f | %.0f | %.1f, %.1f | %.0f %% | %.0f %% | %s | %s, %.0f | %s, %.0f |\n",
			one.factor, one.offered, one.goodput(), 100*one.goodput()/s.peak(), one.refused(), one.unanswered(),
			one.seen.percentile(0.5), one.seen.percentile(0.99), 100*one.busy, 100*one.other, percent(one.payers.share()),
			percent(one.payers.Starts.share()), one.payers.Starts.p99(), percent(one.payers.Looks.share()), one.payers.Looks.p99())
	}
}

// arithmetic says what a core can do that serves and refuses.
func (r *results) arithmetic(b *strings.Builder) {
	var refusal float64
	var core *scene
	for _, s := range r.overload {
		if refusal == 0 {
			refusal = s.refusal()
		}
		if s.onCore && core == nil {
			core = s
		}
	}
	if core == nil || refusal == 0 || refusal >= core.cost { // else other work was in the way
		return
	}
	ratio := refusal / core.cost
	fmt.Fprintf(b, `
### What can be expected

A core that serves in w and refuses in r has, at k times its capacity, (1 − k·r/w) ÷ (1 − r/w) of its capacity left to serve
with. Where something else is scarce, a store or a provider, w is its time and r/w next to nothing. Where the core itself
is, a read costs %.1f µs and a refusal %.1f: r/w is %.2f.

| offered | `, core.cost, refusal, ratio)
	for _, k := range factors {
		fmt.Fprintf(b, "%g × | ", k)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(factors)) + "\n| left to serve with | ")
	for _, k := range factors {
		fmt.Fprintf(b, "%.0f %% | ", 100*shareLeft(k, ratio))
	}
	fmt.Fprintf(b, "\n\nBeyond %.1f × not even all can be refused. For nine tenths to be left at 20 ×, work would have to cost %.0f times a refusal, %.1f ms.\n"+
		"So cheap reads are not protected by refusing them one by one, but by not taking them in: few connections in front.\n",
		1/ratio, (20-overloadGoal)/(1-overloadGoal), refusal*(20-overloadGoal)/(1-overloadGoal)/1000)
}

// percent of a share, with a decimal where it is nearly all and not all.
func percent(share float64) string {
	if share > 0.99 && share < 1 {
		return fmt.Sprintf("%.1f %%", 100*share)
	}
	return fmt.Sprintf("%.0f %%", 100*share)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
