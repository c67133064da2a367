// The server's clock, as seen from here. Time runs on performance.now(), which
// nobody can set, plus an offset learnt from GET /v1/time. Of many samples the
// one with the smallest possible error wins: half its round trip, plus what the
// local oscillator may have drifted since.
const drift = 1e-4;
const keep = 16;

export class ServerClock {
  // ask() answers the server's time in ms; mono() and wall() are injected in tests.
  constructor(ask, mono = () => performance.now(), wall = () => Date.now()) {
    Object.assign(this, { ask, mono, wall, samples: [], gap: wall() - mono() });
    this.offset = this.gap;
  }

  now() {
    return this.mono() + this.offset;
  }

  // Half-width of the interval that holds the true time, in ms.
  error() {
    return this.samples.length ? this.bound(this.best()) : Infinity;
  }

  bound(s) {
    return s.trip / 2 + (this.mono() - s.at) * drift;
  }

  best() {
    return this.samples.reduce((a, b) => (this.bound(b) < this.bound(a) ? b : a));
  }

  async sample() {
    const from = this.mono();
    const then = await this.ask();
    const at = this.mono();
    this.samples.push({ offset: then + (at - from) / 2 - at, trip: at - from, at });
    if (this.samples.length > keep) this.samples.shift();
    this.offset = this.best().offset;
  }

  // A device that slept may have stopped its monotonic clock: the distance to
  // its wall clock then jumps, and what was learnt before is worth nothing.
  slept() {
    const gap = this.wall() - this.mono();
    if (Math.abs(gap - this.gap) < 1000) return false;
    this.gap = gap;
    this.samples = [];
    return true;
  }

  async sync(rounds = 5) {
    this.slept();
    for (let i = 0; i < rounds; i++) {
      try {
        await this.sample();
      } catch {
        // The next round, or the next sync, will do.
      }
    }
  }

  // Syncs now, every minute or so, and when the page is looked at again.
  run() {
    const again = () => setTimeout(() => this.sync(document.hidden ? 0 : 2).then(again), 45000 + Math.random() * 30000);
    document.addEventListener("visibilitychange", () => document.hidden || this.sync(this.slept() ? 5 : 2));
    return this.sync().finally(again);
  }
}

// Calls show(ms left) now and at every whole second left, until 0 or abort.
// Each wait is computed from the clock, so errors do not add up.
export function countdown(clock, until, show, signal) {
  let timer;
  const tick = () => {
    clearTimeout(timer);
    if (signal.aborted) return;
    const left = until - clock.now();
    show(Math.max(0, left));
    if (left > 0) timer = setTimeout(tick, Math.max(1, left % 1000));
    else document.removeEventListener("visibilitychange", tick);
  };
  document.addEventListener("visibilitychange", tick, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  tick();
}

// "59", "09:59", "2:09:59"; whole days are the caller's.
export function digits(ms) {
  const s = Math.ceil(ms / 1000);
  const two = (n) => String(n).padStart(2, "0");
  const rest = two(Math.floor(s / 60) % 60) + ":" + two(s % 60);
  return s < 3600 ? rest : two(Math.floor(s / 3600)) + ":" + rest;
}
