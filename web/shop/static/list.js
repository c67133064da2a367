// The front page: every sale, and the shopper's own orders.
import { get, patiently } from "./api.js";
import { countdown, digits } from "./clock.js";
import { h, jitter, say, sleep, picture } from "./dom.js";
import { phase } from "./sale.js";
import { token } from "./session.js";
import { actions, aftermath, status, unpaid } from "./slip.js";
import { clockFace, moment, money, pick, t } from "./words.js";

export async function listPage(main, clock, signal) {
  const { activities } = await patiently(() => get("/v1/activities"), signal);
  document.title = t("sales");
  const rank = { open: 0, paused: 0, before: 1, ended: 2 };
  const order = (s) => rank[phase(s, clock.now())];
  activities.sort((a, b) => order(a) - order(b) || Date.parse(a.opens_at) - Date.parse(b.opens_at));
  main.replaceChildren(
    h("h1", { tabindex: -1 }, t("sales")),
    activities.length
      ? h("ul", { class: "sales" }, activities.map((sale) => row(sale, clock, signal)))
      : h("p", null, t("no_sales")),
    orders(clock, signal));
  if (location.hash === "#orders") document.getElementById("orders").scrollIntoView();
}

function row(sale, clock, signal) {
  const label = h("small");
  const face = h("b", { class: "digits" });
  const cheapest = sale.items.reduce((a, b) => (b.price.amount < a.price.amount ? b : a), sale.items[0]);
  const el = h("li", null, h("a", { class: "sale", href: "/a/" + encodeURIComponent(sale.id) },
    h("span", { class: "strip" }, sale.items.slice(0, 3).map((i) => picture(i.image))),
    h("span", { class: "about" },
      h("h2", null, pick(sale.title)),
      cheapest && h("p", null, t("offer", sale.items.length, money(cheapest.price)))),
    h("span", { class: "clock" }, label, face)));

  (function run() {
    if (signal.aborted) return;
    const is = phase(sale, clock.now());
    el.dataset.phase = is;
    label.textContent = t({ before: "opens_in", ended: "closed", paused: "paused" }[is] || "closes_in");
    if (is === "ended") return void (face.textContent = "");
    countdown(clock, Date.parse(is === "before" ? sale.opens_at : sale.closes_at), (left) => {
      face.textContent = clockFace(left);
      if (!left) queueMicrotask(run);
    }, signal);
  })();
  return el;
}

function orders(clock, signal) {
  const list = h("ol");
  const empty = h("p", null, t(token ? "no_orders" : "stranger"));
  const more = h("button", { type: "button", hidden: true, onclick: () => load(next) }, t("more"));
  let next = "";
  let turn = new AbortController();
  signal.addEventListener("abort", () => turn.abort());

  // Newest first; before continues an earlier page.
  async function load(before = "") {
    const page = await patiently(() => get("/v1/orders" + (before && "?before=" + encodeURIComponent(before))), signal);
    if (!before) {
      turn.abort();
      turn = new AbortController();
      list.replaceChildren();
    }
    list.append(...page.orders.map((o) => entry(o, clock, refresh, turn.signal)));
    next = page.next;
    more.hidden = !next;
    empty.hidden = list.childElementCount > 0;
  }
  const refresh = () => token && !signal.aborted && load().catch(() => {});
  document.addEventListener("visibilitychange", () => document.hidden || refresh(), { signal });
  refresh();
  return h("section", { id: "orders" }, h("h2", null, t("orders")), empty, list, more);
}

function entry(o, clock, refresh, signal) {
  const is = status({ order_state: o.state, reason: o.reason });
  const note = h("p", { class: "note" }, aftermath(o));
  const state = h("p", { class: "state" }, t("s_" + is));
  const told = (text, order) => {
    if (text) say((note.textContent = text));
    else if (order) say(t("s_" + status({ order_state: order.state, reason: order.reason })));
    if (order) refresh();
  };
  if (unpaid(is)) {
    const face = h("b", { class: "digits" });
    state.append(" ", face);
    countdown(clock, Date.parse(o.expires_at), (left) => {
      face.textContent = digits(left);
      if (!left) sleep(jitter(2000), signal).then(refresh, () => {});
    }, signal);
  }
  return h("li", { class: "order", "data-status": is },
    picture(o.lines[0]?.image),
    h("div", { class: "about" },
      h("h3", null, o.lines.map((l) => `${pick(l.title)} × ${l.quantity}`).join(", ")),
      h("p", null, moment(o.created_at)),
      h("p", { class: "id" }, o.id),
      note),
    h("p", { class: "price" }, o.total ? money(o.total) : ""),
    state,
    h("div", { class: "do" }, unpaid(is) && actions(o.id, o.activity, told, signal)));
}
