// The waiting room. The place in it is the server's: after a reload, on another
// device, or back from sleep the page only asks for it again. Whoever has chosen
// something has it reserved the moment of being called.
import { jitter, sleep, vault } from "./dom.js";
import { roomPanel } from "./panel.js";

export function waitingRoom(page, base, proving, signal) {
  const { Problem, get, post, sale } = page;
  const path = base + "/queue";

  let looked = false; // whether the sale is known to have a queue
  let place = null;   // what the server said last; null: not in it
  let line = null;    // ends the following of the place
  let choice = null;  // the purchase that waits: {attempt, done(pass), fail(problem)}
  let serving = null; // the attempt that is being bought with the pass
  let last = null;    // what was chosen last

  const pass = () => (place?.state === "called" && Date.parse(place.expires_at) > page.clock.now() ? place.pass : "");
  const panel = roomPanel(page, path, notes(page), { leave, rejoin, close, lapse }, signal);
  const paint = () => panel.paint(place, choice?.attempt || serving);

  // News of the place. Answers whether there will be no more: after a call, time decides.
  function hear(news) {
    if (signal.aborted) return true;
    const { number, entry, commitment } = place || {}; // not told again at the end
    place = { number, entry, commitment, ...news };
    if (news.state === "over") settle("sold_out");
    else if (news.state === "lapsed") settle("lapsed");
    else if (pass() && choice) {
      serving = choice.attempt;
      choice.done(pass());
      choice = null;
    }
    paint();
    return news.state !== "registered" && news.state !== "waiting";
  }

  // The place is followed no longer, and whoever waits is told why.
  function settle(code) {
    line?.abort();
    line = null;
    drop(code);
  }

  function drop(code) {
    if (!choice) return;
    page.save(Object.assign(choice.attempt, { waits: 0, clicked: 0 }));
    choice.fail(new Problem(code, 409));
    choice = null;
  }

  function close() {
    place = null;
    paint();
  }

  function lapse() {
    if (!serving) hear({ state: "lapsed" });
  }

  async function leave() {
    if (place.state !== "early") {
      await page.patiently(() => post(path + "/leave", {}), signal, () => {}, 4).catch((problem) => {
        if (problem.code !== "not_queued") throw problem;
      });
    }
    settle("left");
    close();
  }

  function rejoin() {
    return last ? page.go(last) : join();
  }

  // Takes a place, or with again the one that is there, and follows it.
  async function join(again) {
    const ask = again ? () => get(path) : () => proving((shows) => post(path, shows));
    for (;;) {
      try {
        const found = await page.patiently(ask, signal);
        if (!line && !hear(found)) track();
        return;
      } catch (problem) {
        if (again && problem.code === "not_queued") return join();
        const at = problem.code === "not_open" && problem.fields.queue_opens_at;
        if (!at) throw problem;
        await early(at);
      }
    }
  }

  // The room is not open yet. When one came does not matter, so nobody hurries then either.
  async function early(queue_opens_at) {
    const mine = leash();
    place = { state: "early", queue_opens_at };
    paint();
    for (let left; (left = Date.parse(queue_opens_at) - page.clock.now()) > 0; ) await sleep(Math.min(left, 60000), mine.signal);
    await sleep(jitter(3000), mine.signal);
    line = null;
  }

  async function track() {
    const mine = leash();
    await page.follow(path, (news) => mine.signal.aborted || hear(news), mine.signal, true);
    if (line !== mine || place?.state === "called") return;
    // The following ended and the waiting did not: it was left elsewhere, or the token is not good any more.
    const end = await get(path).then(hear, (problem) => problem.code);
    if (end === false) return sleep(jitter(2000), signal).then(track, () => {});
    if (end === true || signal.aborted) return;
    settle(end === "not_queued" ? "left" : end);
    close();
  }

  function leash() {
    const mine = (line = new AbortController());
    signal.addEventListener("abort", () => mine.abort(signal.reason));
    return mine;
  }

  // Waits to be called and answers the pass. used is one that was refused.
  function enter(attempt, used) {
    if (used && used === place?.pass) settle("left");
    last = attempt;
    if (!used && pass()) {
      serving = attempt;
      return pass();
    }
    drop("changed");
    return new Promise((done, fail) => {
      const again = attempt.waits || used;
      const mine = (choice = { attempt, done, fail });
      page.save(Object.assign(attempt, { waits: 1 })); // a reload goes on from here
      signal.addEventListener("abort", () => fail(signal.reason));
      paint();
      if (line) return;
      join(again).then(() => choice === mine && !again && panel.focus(), (problem) => {
        if (signal.aborted || choice !== mine) return;
        if (place?.state !== "called") place = null;
        page.save(Object.assign(attempt, { waits: 0, clicked: 0 }));
        choice = null;
        paint();
        fail(problem);
      });
    });
  }

  // A purchase has been answered. With an order there is nothing to wait for any more.
  function after(attempt) {
    if (serving === attempt) serving = null;
    if (attempt.order && place) {
      panel.notes.write({ entry: place.entry, used: true });
      settle("left");
      close();
    } else if (place) paint();
  }

  // Takes up a place that was taken in another tab, or on another device.
  function look(queue) {
    if (looked || !queue) return;
    looked = true;
    if (!page.token || page.known(sale().id).some((a) => a.waits && page.unanswered(a))) return;
    get(path).then((found) => {
      const gone = found.state === "lapsed" || found.state === "over" || panel.notes.read(found.entry).used;
      if (!line && !choice && !gone && !hear(found)) track();
    }, () => {});
  }

  // The word on an item's button, where the queue decides it.
  function word(sku, is, stock) {
    if (!looked && !place || is !== "before" && is !== "open" || stock === "sold_out" || place?.state === "over") return "";
    if (choice) return choice.attempt.sku !== sku ? "choose" : place ? "in_queue" : "joining";
    if (place?.state === "called") return "";
    return line ? "choose" : "join";
  }

  return { after, enter, look, word };
}

// What this browser has seen of a place: the fingerprint published before the draw,
// the position it began with, whether it was used. Another entry begins anew.
function notes({ user, sale }) {
  const store = vault("localStorage");
  const name = ["sluice-room", encodeURIComponent(user), sale().id].join("/");
  const read = (entry) => {
    try {
      const kept = JSON.parse(store.get(name));
      return kept.entry === entry ? kept : {};
    } catch {
      return {};
    }
  };
  return { read, write: (more) => store.set(name, JSON.stringify({ ...read(more.entry), ...more })) };
}
