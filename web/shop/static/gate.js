// What the shopper sees of the gate: the waiting room, the check for a person,
// and, without being seen, the ticket. Loaded by the page of a sale that asks for
// one of them, which hands over itself and the modules that have a state (sale.js).
import { h, say, sleep } from "./dom.js";
import { waitingRoom } from "./room.js";

// What is said about a shop that has switched something off, in this order.
const switches = ["stock_tight", "close_registration", "read_only_orders"];

let styled;
const style = () => (styled ??= new Promise((done) => {
  const href = new URL("./gate.css", import.meta.url);
  document.head.append(h("link", { rel: "stylesheet", href, onload: done, onerror: done }));
}));

export async function gate(page, signal) {
  const { Problem, post, sale, t } = page;
  await Promise.all([page.learn(() => import("./gateen.js"), () => import("./gatezh.js")), style()]);
  const base = "/v1/activities/" + encodeURIComponent(sale().id);
  const needs = (what) => !!sale().needs?.includes(what);
  const notice = h("div", { class: "notices", hidden: true });
  page.slips.before(notice);

  // Asks whether somebody is there. The answer is a clearance. One dialog is enough.
  let asking;
  function challenge() {
    return (asking ??= import("./captcha.js")
      .catch(() => {
        throw new Problem("network");
      })
      .then(({ ask }) => ask(page, base + "/challenges", signal))
      .finally(() => (asking = null)));
  }

  // Does a request, once more with a clearance if that is what it lacks.
  async function proving(request) {
    for (let shows = {}, n = 0; ; n++) {
      try {
        return await request(shows);
      } catch (problem) {
        if (problem.code !== "challenge_required" || n > 2) throw problem;
        shows = { clearance: await challenge() };
      }
    }
  }

  const room = waitingRoom(page, base, proving, signal);

  // One ticket, kept until it is used or has run out.
  let ticket;
  const fresh = () => ticket && Date.parse(ticket.expires_at) > page.clock.now() + 1000;
  const draw = (shows) => post(base + "/tickets", shows);
  async function hand() {
    if (!fresh()) ticket = await page.patiently(() => proving(draw), signal);
    return ticket.ticket;
  }

  // Fetches the ticket before the opening, when tickets are handed out, each page at
  // a moment of its own. A check for a person is offered, not sprung on anybody.
  let fetching;
  async function early() {
    if (fetching || !page.token || !needs("ticket")) return;
    fetching = true;
    for (let n = 0; n < 5 && !fresh(); n++) {
      const opens = Date.parse(sale().opens_at);
      if (opens < page.clock.now()) return;
      try {
        ticket = await page.patiently(() => draw({}), signal);
      } catch ({ code, fields }) {
        if (code === "challenge_required") return offer();
        const from = Date.parse(fields?.tickets_at);
        if (code !== "not_open" || !from) return;
        await until(from + Math.random() * 0.8 * Math.max(0, opens - from));
      }
    }
  }
  async function until(time) {
    for (let left; (left = time - page.clock.now()) > 0; ) await sleep(Math.min(left, 60000), signal);
  }

  let offered;
  function offer() {
    const note = h("p", { class: "note", role: "status" });
    const button = h("button", { type: "button", onclick: () => hand().then(() => {
      offered = null;
      look();
      say(t("ready"));
    }, (problem) => (note.textContent = page.sorry(problem))) }, t("check_now"));
    offered = h("div", { class: "notice" }, h("p", null, t("check_early")), button, note);
    look();
  }

  // What the activity's document says now.
  function look() {
    const lines = switches.filter((s) => sale().degraded?.includes(s)).map((s) => h("p", { class: "notice" }, t("n_" + s)));
    notice.replaceChildren(...lines, ...(offered ? [offered] : []));
    notice.hidden = !notice.childElementCount;
    room.look(needs("queue"));
    early().catch(() => {});
  }

  // What a purchase is to show. refusal is why it was refused, if it was, showing shows.
  async function admit(attempt, refusal, shows) {
    const why = refusal?.code;
    if (why === "challenge_required") return { ...shows, clearance: await challenge() };
    if (why === "ticket_required") ticket = null;
    else if (refusal && why !== "queued") throw refusal;
    const next = {};
    if (why === "queued" || needs("queue")) next.pass = await room.enter(attempt, why === "queued" && shows?.pass);
    if (why === "ticket_required" || needs("ticket")) next.ticket = await hand();
    return next;
  }

  // A purchase has been answered.
  function after(attempt) {
    if (attempt.order) ticket = null;
    room.after(attempt);
  }

  if (needs("challenge")) import("./captcha.js").catch(() => {});
  return { admit, after, look, word: room.word };
}
