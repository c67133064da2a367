// Tests of the modules' logic, run in a real browser by script_test.go. Each
// export is one test; it throws what is wrong.
import { Problem } from "/src/api.js";
import { begin, buy, end, forget, known, unanswered } from "/src/attempt.js";
import { countdown, digits, ServerClock } from "/src/clock.js";
import { before, check, hex, rankOf, unhex } from "/src/draw.js";
import { events, follow } from "/src/follow.js";
import { about } from "/src/panel.js";
import { phase } from "/src/sale.js";
import { status } from "/src/slip.js";
import { clockFace, learn, money, pick, sorry, speak, t } from "/src/words.js";

function is(got, want, what = "") {
  if (JSON.stringify(got) !== JSON.stringify(want)) {
    throw new Error(`${what}: got ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
  }
}

const never = () => new AbortController().signal;

// A clock whose time stands still unless it is moved, and a server 5 s ahead.
function lab() {
  const time = { mono: 1000, slept: 0, up: 0, down: 0 };
  const ask = async () => {
    time.mono += time.up;
    const now = time.mono + 5000;
    time.mono += time.down;
    return now;
  };
  const clock = new ServerClock(ask, () => time.mono, () => time.mono + 1e12 + time.slept);
  const sample = (up, down) => {
    Object.assign(time, { up, down });
    return clock.sample();
  };
  return { time, clock, sample, off: () => clock.now() - (time.mono + 5000) };
}

export async function clockTakesTheShortestRoundTrip() {
  const { clock, sample, off } = lab();
  is(clock.error(), Infinity, "before any sample");
  await sample(10, 400);
  is(off(), -195, "one lopsided sample is wrong by half its lopsidedness");
  await sample(4, 6);
  is(off(), -1, "a short one is nearly right");
  await sample(300, 2);
  is(off(), -1, "a longer one after it changes nothing");
  if (clock.error() > 5.1) throw new Error("error " + clock.error());
}

export async function clockForgetsOldSamplesByDrift() {
  const { time, sample, off } = lab();
  await sample(0, 10);
  is(off(), -5);
  time.mono += 60000;
  await sample(0, 30);
  is(off(), -5, "a minute later the short one still bounds the error best");
  time.mono += 600000;
  await sample(0, 30);
  is(off(), -15, "after ten it no longer does");
}

export async function clockStartsAnewAfterSleep() {
  const { time, clock, sample, off } = lab();
  await sample(1, 1);
  time.slept = 30000;
  Object.assign(time, { up: 20, down: 20 });
  await clock.sync(1);
  is(clock.samples.length, 1, "samples from before the sleep");
  is(off(), 0);
}

export async function clockSurvivesFailures() {
  const clock = new ServerClock(() => Promise.reject(new Problem("network")));
  await clock.sync(3);
  const gap = Math.abs(clock.now() - Date.now());
  if (gap > 5) throw new Error("without a server the device's clock must do; off by " + gap);
}

export async function countdownNeverEarlyNeverDrifting() {
  const clock = { now: () => performance.now() };
  const until = clock.now() + 2100;
  const seen = [];
  await new Promise((done) => countdown(clock, until, (left) => {
    seen.push(Math.ceil(left / 1000));
    if (!left) done();
  }, never()));
  const late = clock.now() - until;
  if (late < 0 || late > 250) throw new Error("ended " + late + " ms after the time");
  is([...new Set(seen)], [3, 2, 1, 0], "seconds shown");
}

export async function countdownStops() {
  const life = new AbortController();
  let calls = 0;
  countdown({ now: () => performance.now() }, performance.now() + 50, () => calls++, life.signal);
  life.abort();
  await new Promise((done) => setTimeout(done, 120));
  is(calls, 1, "calls after the abort");
}

export function faces() {
  is(digits(0), "00:00");
  is(digits(1), "00:01");
  is(digits(59_001), "01:00");
  is(digits(3_600_000), "01:00:00");
  is(digits(90_061_000), "25:01:01");
  is(clockFace(90_061_000), "25:01:01");
  is(clockFace(5 * 86400000), "5 days");
}

const streamOf = (...chunks) =>
  new ReadableStream({
    start(c) {
      for (const chunk of chunks) c.enqueue(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk);
      c.close();
    },
  });

export async function eventsInAnyChunks() {
  const whole = new TextEncoder().encode('id: 1\ndata: {"a":"预"}\n\n: keep-alive\n\nid: 2\r\ndata: x\r\ndata: y\r\n\r\n');
  for (let size = 1; size < 12; size++) {
    const chunks = [];
    for (let i = 0; i < whole.length; i += size) chunks.push(whole.slice(i, i + size));
    const got = [];
    for await (const e of events(streamOf(...chunks))) got.push(e);
    is(got, [{ id: "1", data: '{"a":"预"}' }, { id: "", data: "" }, { id: "2", data: "x\ny" }], "chunks of " + size);
  }
}

// Answers requests from a script, and notes them down.
async function scripted(answers, work) {
  const real = window.fetch;
  const asked = [];
  window.fetch = async (path, init) => {
    asked.push({ path, ...init });
    const next = answers.shift();
    if (!next) throw new TypeError("network");
    return next;
  };
  try {
    await work();
  } finally {
    window.fetch = real;
  }
  return asked;
}

const json = (code, body, headers) => new Response(JSON.stringify(body), { status: code, headers });

export async function followResumesThenPolls() {
  const seen = [];
  const held = { state: "held", order_state: "created" };
  const asked = await scripted(
    [
      new Response(streamOf(`id: 1\ndata: ${JSON.stringify(held)}\n\n`)),
      json(502, {}),
      json(200, held),
      json(200, { state: "confirmed", order_state: "paid" }),
    ],
    () => follow("/v1/reservations/a.0.1.7", (r) => {
      seen.push(r.state);
      return r.state === "confirmed";
    }, never()),
  );
  is(seen, ["held", "held", "confirmed"]);
  const events = "/v1/reservations/a.0.1.7/events";
  is(asked.map((a) => a.path), [events, events, "/v1/reservations/a.0.1.7", "/v1/reservations/a.0.1.7"]);
  is(asked.map((a) => a.headers["Last-Event-ID"] || ""), ["", "1", "", ""], "Last-Event-ID");
}

export async function followGivesUpOnWhatIsNotThere() {
  const asked = await scripted([json(404, { code: "no_such_reservation" })], () => follow("/v1/x", () => false, never()));
  is(asked.length, 1);
}

export async function followAsksWhenItIsToldTo() {
  const no = () => json(503, { code: "overloaded" });
  const began = performance.now();
  const times = [];
  await scripted([no(), no(), ...[200, 200, 0].map((poll_after_ms, n) => json(200, { n, poll_after_ms }))], () =>
    follow("/v1/x", (news) => {
      times.push(performance.now() - began);
      return news.n === 2;
    }, never(), true));
  for (const n of [1, 2]) {
    const pause = times[n] - times[n - 1];
    if (pause < 200 || pause > 600) throw new Error("asked again after " + pause + " ms, not 200 and a little");
  }
}

export async function oneWishOneKey() {
  localStorage.clear();
  const a = begin("s1", "lamp", 1);
  is(a.key.length, 32);
  is(begin("s1", "lamp", 1).key, a.key, "a second click");
  const others = [begin("s1", "lamp", 2), begin("s1", "chair", 1), begin("s2", "lamp", 1)];
  is(new Set([a, ...others].map((x) => x.key)).size, 4, "other terms, other keys");
  is(known("s1").length, 3);
  is(unanswered(a), true);
  end(a);
  const next = begin("s1", "lamp", 1);
  if (next.key === a.key) throw new Error("an ended reservation's key was used again");
  forget(a);
  end(a);
  is(begin("s1", "lamp", 1).key, next.key, "putting away an old slip must not touch the new wish");
  localStorage.clear();
}

export async function retriesCarryTheSameKey() {
  localStorage.clear();
  const a = begin("s1", "lamp", 1);
  const waits = [];
  const asked = await scripted(
    [
      json(503, { code: "overloaded" }),
      json(503, { code: "unknown" }),
      new Response("{", { status: 202 }),
      json(202, { order: "9", reservation: "s1.0.1.1", state: "held" }),
    ],
    () => buy(a, never(), (p) => waits.push(p.code)),
  );
  is(waits, ["overloaded", "unknown", "network"]);
  is(asked.map((r) => r.headers["Idempotency-Key"]), Array(4).fill(a.key), "keys");
  is(asked.map((r) => JSON.parse(r.body)), Array(4).fill({ sku: "lamp", quantity: 1 }), "bodies");
  is(begin("s1", "lamp", 1).order, "9", "the receipt is kept");
  localStorage.clear();
}

export async function refusalsAreNotRetried() {
  localStorage.clear();
  for (const code of ["sold_out", "all_held", "insufficient", "limit_reached", "ended", "paused", "not_open"]) {
    const a = begin("s1", code, 1);
    let refused = "";
    const asked = await scripted([json(code === "paused" ? 503 : 409, { code })], () => buy(a, never()).catch((p) => (refused = p.code)));
    is([asked.length, refused], [1, code]);
    is(known("s1").filter((k) => k.sku === code && unanswered(k)).length, 0, "a refusal is an answer");
    is(begin("s1", code, 1).key, a.key, "the key stays for the next click");
  }
  localStorage.clear();
}

export function states() {
  is(status({ state: "held", order_state: "created" }), "held");
  is(status({ state: "pending" }), "pending");
  is(status({ state: "held", order_state: "paid" }), "paid");
  is(status({ state: "confirmed", order_state: "created" }), "paid");
  is(status({ state: "expired", order_state: "cancelled" }), "expired");
  is(status({ order_state: "cancelled", reason: "timeout" }), "expired");
  is(status({ state: "released", order_state: "cancelled" }), "cancelled");
  is(status({ state: "returned", order_state: "refunded" }), "refunded");
  is(status({ state: "refused" }), "refused");
}

export function phases() {
  const sale = { opens_at: "2026-11-11T12:00:00.000Z", closes_at: "2026-11-11T13:00:00.000Z" };
  const opens = Date.parse(sale.opens_at);
  const f = (state, at, want) => is(phase({ ...sale, state }, at), want, state + " at " + (at - opens));
  f("scheduled", opens - 1, "before");
  f("scheduled", opens, "open");
  f("warm", opens, "open");
  f("open", opens + 3599999, "open");
  f("open", opens + 3600000, "ended");
  f("paused", opens - 1, "before");
  f("paused", opens, "paused");
  f("draining", opens, "ended");
  f("closed", opens - 1, "ended");
}

export async function words() {
  await speak("en");
  is(pick("Arc lamp · 弧光灯"), "Arc lamp");
  is(pick("One line.\n一行。"), "One line.");
  is(pick("No translation"), "No translation");
  is(pick("A · B"), "A · B");
  is(money({ amount: 129900, currency: "CNY" }), "¥1,299");
  is(money({ amount: 5, currency: "CNY" }), "¥0.05");
  is(money({ amount: 500, currency: "JPY" }), "¥500");
  is(sorry(new Problem("insufficient", 409, { available: 2 })), "Only 2 left. Choose fewer.");
  is(sorry(new Problem("from_the_future", 418)), t("e_invalid_request"));
  is(sorry(new Problem("from_the_future", 599)), t("e_internal"));
  await speak("zh");
  is(document.documentElement.lang, "zh-CN");
  is(pick("Arc lamp · 弧光灯"), "弧光灯");
  is(t("buy"), "立即抢购");
  await speak("en");
}

export async function showsWhatTheGateHandedOut() {
  localStorage.clear();
  const a = begin("s1", "lamp", 1);
  const asked = await scripted(
    [json(403, { code: "challenge_required" }), json(202, { order: "9", reservation: "s1.0.1.1" })],
    async () => {
      await buy(a, never()).catch(() => {});
      await buy(a, never(), () => {}, { pass: "p", clearance: "c" });
    },
  );
  is(asked.map((r) => JSON.parse(r.body)), [{ sku: "lamp", quantity: 1 }, { sku: "lamp", quantity: 1, pass: "p", clearance: "c" }]);
  is(asked[0].headers["Idempotency-Key"], asked[1].headers["Idempotency-Key"], "keys");
  localStorage.clear();
}

export function waitingOutlastsTheClick() {
  const old = { clicked: Date.now() - 3600000 };
  is(!!unanswered(old), false);
  is(!!unanswered({ ...old, waits: 1 }), true, "in the waiting room");
  is(!!unanswered({ ...old, waits: 1, order: "9" }), false);
  is(!!unanswered({ ...old, waits: 1, over: true }), false);
}

// The estimate and its error in words that promise no more than they say.
export async function howLongItTakes() {
  await speak("en");
  await learn(() => import("/src/gateen.js"), () => import("/src/gatezh.js"));
  const f = (estimate, error, want) => is(about(t, estimate, error), want, `${estimate} ± ${error}`);
  f(undefined, undefined, "How long it takes is not known yet.");
  f(0, 0, "Any moment now.");
  f(12, 3, "Any moment now.");
  f(12, 9, "Less than 30 seconds to your turn.");
  f(30, 0, "About 30 seconds to your turn.");
  f(40, 8, "About 30 to 50 seconds to your turn.");
  f(90, 40, "Less than 3 minutes to your turn.");
  f(180, 60, "About 2 to 4 minutes to your turn.");
  f(240, 0, "About 4 minutes to your turn.");
  f(3600, 600, "About 50 to 70 minutes to your turn.");
  f(9000, 1000, "About 2 to 3 hours to your turn.");
}

// A draw of five by another program (SHA-256 from the command line).
const seed = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const five = [1, 2, 3, 4, 5].map((n) => String(n).repeat(32));
const facts = async (entries) => {
  const sha = async (bytes) => hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
  return {
    drawn: true, algorithm: "sha256-sort", seed, drawn_entries: entries.length,
    commitment: await sha(unhex(seed)), digest: await sha(unhex(entries.join(""))),
  };
};

export async function drawsFollowFromTheSeed() {
  is(hex(unhex("00ff10")), "00ff10");
  is(before(unhex("01ff"), unhex("0200")), true);
  is(before(unhex("0200"), unhex("01ff")), false);
  is(before(unhex("0200"), unhex("0200")), false);
  const draw = await facts(five);
  is(draw.commitment, "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd");
  const places = await Promise.all(five.map((_, i) => rankOf(i, 5, unhex(seed), unhex(draw.digest), () => {})));
  is(places, [4, 2, 0, 3, 1], "ranks");

  const f = async (change, want) => {
    const ask = { draw, entry: five[3], number: 3, position: 1, seen: draw.commitment, progress: () => {}, ...change };
    ask.entries = change.entries || (async (from) => ({ entries: five.slice(from, from + 2) })); // in pages of two
    is(await check(ask), want, JSON.stringify(change));
  };
  const ok = { place: 4, of: 5 };
  await f({}, ok);
  await f({ seen: undefined }, ok);
  await f({ position: 4 }, ok);
  await f({ position: 5 }, { fault: "place" });
  await f({ seen: "00" }, { fault: "commitment" });
  await f({ draw: { ...draw, seed: seed.replace("00", "ff") } }, { fault: "commitment" });
  await f({ draw: { ...draw, digest: seed } }, { fault: "digest" });
  await f({ entry: five[2] }, { fault: "entry" });
  await f({ entries: async () => ({ entries: [] }) }, { fault: "digest" });
  await f({ entries: async () => ({ entries: five }), draw: { ...draw, drawn_entries: 4 } }, { fault: "digest" });
  await f({ draw: { ...draw, drawn_entries: 100001 } }, { fault: "large" });
  await f({ draw: { ...draw, drawn: false } }, { fault: "unknown" });
}

// A hundred thousand are worked through without the page standing still.
export async function aLargeDrawLeavesThePageAlive() {
  let longest = 0;
  let last = performance.now();
  const beat = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 4);
  const began = performance.now();
  await rankOf(7, 100000, unhex(seed), unhex(seed), () => {});
  clearInterval(beat);
  const took = performance.now() - began;
  console.info(`100,000 in ${took} ms, longest pause ${longest} ms`);
  if (longest > 500) throw new Error(`the page stood still for ${longest} ms of ${took}`);
}
