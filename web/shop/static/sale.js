// The page of one sale: the clock, the items, and the shopper's slips.
import { get, patiently, post, Problem } from "./api.js";
import { begin, buy, end, forget, known, save, unanswered } from "./attempt.js";
import { countdown } from "./clock.js";
import { h, jitter, say, sleep, visible, picture } from "./dom.js";
import { follow } from "./follow.js";
import { token, user } from "./session.js";
import { slip, status, unpaid } from "./slip.js";
import { clockFace, learn, moment, money, pick, sorry, t } from "./words.js";

const announce = [300, 60, 30, 10, 5];

// Refusals that the gate takes back once it has been shown what it asks for.
const gated = { queued: 1, ticket_required: 1, challenge_required: 1 };

// Where the sale stands by the server's clock. Opening needs no news from the
// server: what was scheduled opens when it is time.
export function phase(sale, now) {
  if (now >= Date.parse(sale.closes_at) || sale.state === "closed" || sale.state === "draining") return "ended";
  if (now < Date.parse(sale.opens_at)) return "before";
  return sale.state === "paused" ? "paused" : "open";
}

export async function salePage(main, id, clock, signal) {
  const path = "/v1/activities/" + encodeURIComponent(id);
  let sale = await patiently(() => get(path), signal);
  const title = pick(sale.title);
  document.title = title;

  const label = h("small");
  const face = h("b", { class: "digits" });
  const span = h("p", { class: "window" });
  const slips = h("div", { class: "slips" });
  const shown = new Map(); // slips by order

  // Puts a slip up, or brings the one that is there to the shopper's attention.
  function present(receipt, what, attempt, look, back) {
    let s = shown.get(receipt.order);
    if (!s) {
      s = slip(clock, receipt, {
        what, activity: sale.id, back,
        ended: () => attempt && end(attempt),
        dismissed: () => {
          shown.delete(receipt.order);
          if (attempt) forget(attempt);
          if (back) history.replaceState(null, "", location.pathname);
          main.querySelector("h1").focus();
        },
      }, signal);
      shown.set(receipt.order, s);
      slips.prepend(s.el);
    }
    if (look) s.heading.focus();
  }

  // The gate's part of the page, loaded when a sale or a refusal asks for it. Modules
  // with a state of their own are handed over: loaded by name, they would be second ones.
  let coming;
  const page = {
    sale: () => sale, go: (a) => cards.find((c) => c.sku === a.sku)?.go(a), run, clock, present, slips, phase, title, user, token,
    get, post, patiently, Problem, follow, known, save, unanswered, countdown, learn, moment, clockFace, pick, sorry, t,
    gate: () => (coming ??= import("./gate.js").then((m) => m.gate(page, signal)).then((g) => {
      page.keeper = g;
      run();
      return g;
    }).catch((fault) => {
      coming = null; // the next click may get it
      throw fault;
    })),
  };

  const cards = sale.items.map((item) => card(item, page, signal));
  main.replaceChildren(
    h("div", { class: "hero" },
      h("div", null, h("a", { class: "back", href: "/" }, t("back")), h("h1", { tabindex: -1 }, title), span),
      h("p", { class: "clock", role: "timer" }, label, face)),
    slips,
    h("ul", { class: "items" }, cards.map((c) => c.el)));

  // Turns the clock and arms the buttons. Called again when the window moves.
  let turn = new AbortController();
  signal.addEventListener("abort", () => turn.abort());
  function run() {
    turn.abort();
    if (signal.aborted) return;
    turn = new AbortController();
    const is = phase(sale, clock.now());
    span.textContent = t("window", moment(sale.opens_at), moment(sale.closes_at));
    label.textContent = t({ before: "opens_in", ended: "closed" }[is] || "closes_in");
    main.dataset.phase = is;
    if (page.keeper) page.keeper.look();
    else if (sale.needs?.length || sale.degraded?.length) page.gate();
    cards.forEach((c) => c.paint(is, ""));
    if (is === "ended") return void (face.textContent = "");
    countdown(clock, Date.parse(is === "before" ? sale.opens_at : sale.closes_at), (left) => {
      face.textContent = clockFace(left);
      if (!left) return arrive(is);
      if (is !== "before") return;
      cards.forEach((c) => c.paint(is, face.textContent));
      if (announce.includes(Math.ceil(left / 1000))) say(t("left", Math.ceil(left / 1000)));
    }, turn.signal);
  }
  function arrive(was) {
    queueMicrotask(run);
    if (was === "before") say(t("now_open"));
  }
  run();

  resume(sale, cards, present, signal);
  watch();

  // Keeps levels fresh: gently, slower while nothing happens, not while hidden.
  async function watch() {
    for (let pause = 4000; !signal.aborted; ) {
      const opening = Date.parse(sale.opens_at) - clock.now();
      try {
        await sleep(opening > 0 ? Math.min(jitter(30000), opening + jitter(2000)) : jitter(pause), signal);
        await visible(signal);
        const before = JSON.stringify(sale);
        sale = await get(path);
        if (JSON.stringify(sale) === before) pause = Math.min(30000, pause * 1.5);
        else {
          pause = 3000;
          run();
        }
      } catch {
        pause = Math.min(60000, pause * 2);
      }
    }
  }
}

// Takes up what this browser was in the middle of: clicks without an answer,
// reservations not yet put away, and the order a payment page sends back.
async function resume(sale, cards, present, signal) {
  const title = (sku) => pick(sale.items.find((i) => i.sku === sku)?.title) || sku;
  const back = new URLSearchParams(location.search).get("order");
  if (!token) return;
  for (const attempt of known(sale.id)) {
    if (unanswered(attempt)) cards.find((c) => c.sku === attempt.sku)?.go(attempt);
    if (!attempt.order) continue;
    try {
      const found = await patiently(() => get("/v1/reservations/" + attempt.reservation), signal);
      present(found, `${title(attempt.sku)} × ${attempt.quantity}`, attempt, attempt.order === back, attempt.order === back);
    } catch (problem) {
      if (problem.status === 404) forget(attempt);
    }
  }
  if (!back || known(sale.id).some((a) => a.order === back)) return;
  const order = await patiently(() => get("/v1/orders/" + encodeURIComponent(back)), signal).catch(() => null);
  if (!order) return;
  const what = order.lines.map((l) => `${pick(l.title)} × ${l.quantity}`).join(", ");
  present({ ...order, order: order.id, state: "", order_state: order.state }, what, null, true, true);
}

// One item: picture, price, how many, and the button.
function card(item, page, signal) {
  const { sale, clock, present } = page;
  const title = pick(item.title);
  const most = Math.max(1, Math.min(item.per_order || 1, item.per_user || Infinity));
  const level = h("p", { class: "level" });
  const note = h("p", { class: "note" });
  const limits = t("limits", item.per_order || 1, item.per_user);
  let quantity = 1;
  let busy = false;
  let is = "before";
  let wait = "";

  const count = h("output", null, "1");
  const step = (by, mark, name) => h("button", { type: "button", "aria-label": t(name), onclick: () => {
    quantity = Math.min(most, Math.max(1, quantity + by));
    count.textContent = quantity;
  } }, mark);
  const stepper = most > 1 && h("div", { class: "stepper", role: "group", "aria-label": t("quantity", title) },
    step(-1, "−", "fewer"), count, step(1, "+", "another"));

  const button = h("button", { type: "button", class: "buy", onclick: () => {
    if (button.ariaDisabled === "true") return;
    if (!token) return tell(t("stranger"));
    go(begin(sale().id, item.sku, quantity), true);
  } });

  const el = h("li", { class: "card", "data-sku": item.sku },
    picture(item.image),
    h("div", { class: "about" },
      h("h2", null, title),
      h("p", { class: "price" }, money(item.price)),
      h("p", { class: "story" }, pick(item.description))),
    h("div", { class: "act" }, level, h("div", { class: "row" }, stepper, button), note));

  function tell(text) {
    note.textContent = text || limits;
    note.classList.toggle("loud", !!text);
    if (text) say(text);
  }

  // A button that waits stays focusable, so that the keyboard can wait on it.
  function paint(phaseNow = is, waitNow = wait) {
    is = phaseNow;
    wait = waitNow;
    const stock = sale().items.find((i) => i.sku === item.sku)?.level || item.level;
    const word = page.keeper?.word(item.sku, is, stock)
      || (busy ? "buying"
      : is === "before" ? "opens_in"
      : is !== "open" ? is
      : { sold_out: "sold_out", all_held: "retry" }[stock] || "buy");
    const armed = !busy && word in { buy: 1, retry: 1, join: 1, choose: 1 };
    level.textContent = t(stock);
    level.dataset.level = stock;
    button.textContent = word === "opens_in" ? `${t(word)} ${wait}` : t(word);
    button.setAttribute("aria-label", (word === "opens_in" ? t("opens_at", moment(sale().opens_at)) : t(word)) + ": " + title);
    button.ariaDisabled = String(!armed);
    button.dataset.busy = busy;
  }

  async function go(attempt, clicked) {
    if (busy) return;
    busy = true;
    paint();
    tell("");
    try {
      for (let shows, refusal, n = 0; ; ) {
        try {
          if (refusal || sale().needs?.length) shows = await (await page.gate()).admit(attempt, refusal, shows);
          refusal = null;
          const receipt = await buy(attempt, signal, () => tell(t("waiting")), shows);
          if (!unpaid(status(receipt))) {
            end(attempt);
            // The wish under this key is over, and the shopper has a new one.
            if (clicked) {
              attempt = begin(attempt.activity, attempt.sku, attempt.quantity);
              continue;
            }
          }
          tell("");
          present(receipt, `${title} × ${attempt.quantity}`, attempt, true);
          return;
        } catch (problem) {
          // A hair too early by the server's clock: the same click, when it is time.
          const early = problem.code === "not_open" ? Date.parse(problem.fields.opens_at) - clock.now() : Infinity;
          if (early < 2000) await sleep(Math.max(50, early) + jitter(100), signal);
          // What the page has no words for, the gate has.
          else if (!refusal && n++ < 5 && (problem.code in gated || !t("e_" + problem.code))) refusal = problem;
          else throw problem;
        }
      }
    } catch (problem) {
      if (signal.aborted) return;
      if (problem.code in { sold_out: 1, all_held: 1 }) sale().items.find((i) => i.sku === item.sku).level = problem.code;
      tell(sorry(problem));
    } finally {
      busy = false;
      page.keeper?.after(attempt);
      paint();
    }
  }

  tell("");
  return { el, sku: item.sku, paint, go };
}
