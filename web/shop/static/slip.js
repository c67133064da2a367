// A slip says how one reservation stands and what can be done about it.
import { get, patiently, post } from "./api.js";
import { countdown, digits } from "./clock.js";
import { h, say, sleep } from "./dom.js";
import { follow } from "./follow.js";
import { money, sorry, t } from "./words.js";

const byReservation = { confirmed: "paid", released: "cancelled", returned: "refunded" };

// One word for both states; once the order has moved, its word counts.
export function status({ state, order_state, reason }) {
  if (order_state === "cancelled") return state === "expired" || reason === "timeout" ? "expired" : "cancelled";
  if (order_state && order_state !== "created") return order_state;
  return byReservation[state] || state || "held";
}

export const unpaid = (s) => s === "held" || s === "pending";

// A button that cannot be pressed twice at once.
export function act(label, busy, work, kind) {
  const button = h("button", { type: "button", class: kind, onclick: async () => {
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true";
    button.textContent = t(busy);
    try {
      await work();
    } finally {
      button.ariaDisabled = "false";
      button.textContent = t(label);
    }
  } }, t(label));
  return button;
}

// Goes to the provider's page, which sends the shopper back to the sale.
async function pay(order, activity, signal) {
  const back = new URL(`/a/${activity}?order=${order}`, location).href;
  const { pay_url } = await patiently(() => post(`/v1/orders/${order}/payments`, { return_url: back }), signal);
  const to = new URL(pay_url, location);
  if (!/^https?:$/.test(to.protocol)) throw new TypeError("pay_url");
  location.assign(to);
  await sleep(5000, signal); // the page is being left, and the button stays busy until it is
}

// The buttons of an unpaid order. told(text, order) hears a refusal, or the order as it is after.
export function actions(order, activity, told, signal) {
  const tell = (work) => async () => {
    try {
      await work();
    } catch (problem) {
      if (signal.aborted) return;
      told(sorry(problem), problem.code === "order_state" ? await get("/v1/orders/" + order).catch(() => null) : null);
    }
  };
  return [
    act("pay", "paying", tell(() => pay(order, activity, signal)), "go"),
    act("cancel", "cancelling", tell(async () => told("", await patiently(() => post(`/v1/orders/${order}/cancel`), signal)))),
  ];
}

// What became of money that came too late, as the order tells it.
export function aftermath(order) {
  if (order.replaced_by) return t("replaced", order.replaced_by);
  return order.refunded?.amount ? t("refund", money(order.refunded)) : "";
}

// The slip for a receipt. ended() is called once its reservation has ended,
// dismissed() when the shopper puts the slip away.
export function slip(clock, receipt, { what, activity, back, ended, dismissed }, signal) {
  const heading = h("h2", { tabindex: -1 });
  const text = h("p");
  const face = h("b", { class: "digits" });
  const timer = h("p", { class: "within", role: "timer" }, h("small", null, t("pay_within")), face);
  const buttons = h("div", { class: "do" });
  const el = h("section", { class: "slip" },
    h("div", { class: "fate" }, heading, text),
    timer,
    h("dl", null,
      h("div", null, h("dt", null, what), h("dd", null, receipt.total ? money(receipt.total) : "")),
      h("div", null, h("dt", null, t("order")), h("dd", { class: "id" }, receipt.order ?? ""))),
    buttons);

  let now = { ...receipt };
  let shown = "";
  const life = new AbortController();
  const stop = () => life.abort();
  signal.addEventListener("abort", stop);

  const told = (sentence, order) => {
    if (order) paint({ order_state: order.state, reason: order.reason });
    if (sentence) say((text.textContent = sentence));
  };

  function paint(news) {
    now = { ...now, ...news };
    const is = status(now);
    if (is === shown) return;
    const first = !shown;
    const open = unpaid(is);
    el.dataset.status = shown = is;
    heading.textContent = t("s_" + is);
    text.textContent = t(is === "held" && back ? "returning" : "d_" + is);
    timer.hidden = !open;
    buttons.replaceChildren(...(open
      ? actions(now.order, activity, told, life.signal)
      : [h("button", { type: "button", onclick: put }, t("dismiss"))]));
    if (!first) say(heading.textContent + ". " + text.textContent);
    if (!open) {
      stop();
      ended(is);
      if (is !== "paid" && is !== "fulfilled") look(back ? 6 : 1);
    }
  }

  function put() {
    stop();
    el.remove();
    dismissed();
  }

  // Late money is placed again or refunded after the order was closed.
  async function look(times) {
    for (let n = 0; n < times; n++) {
      try {
        if (n) await sleep(1000 * 2 ** n, signal);
        const fate = aftermath(await get("/v1/orders/" + now.order));
        if (fate) return told(fate);
      } catch {
        if (signal.aborted) return;
      }
    }
  }

  paint({});
  countdown(clock, Date.parse(now.expires_at), (left) => {
    face.textContent = digits(left);
    if (!left && unpaid(shown)) text.textContent = t("checking");
  }, life.signal);
  follow("/v1/reservations/" + now.reservation, (news) => {
    paint(news);
    return !unpaid(shown);
  }, life.signal);

  return { el, heading };
}
