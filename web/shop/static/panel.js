// What the waiting room looks like: where one stands, for how long, and why that is fair.
import { h, say } from "./dom.js";
import { fairness } from "./fair.js";

export const many = (n) => n.toLocaleString(document.documentElement.lang);

// How long it takes, from the estimate and its error in seconds, in words that
// promise no more than these.
export function about(t, estimate, error = 0) {
  if (estimate == null) return t("eta_unknown");
  const least = Math.max(0, estimate - error);
  const most = estimate + error;
  if (most <= 15) return t("eta_now");
  if (most < 100) {
    const [from, to] = [Math.floor(least / 10) * 10, Math.ceil(most / 10) * 10];
    return from ? t("eta_seconds", from, to) : t("eta_under", to);
  }
  if (most < 5400) {
    const [from, to] = [Math.floor(least / 60), Math.ceil(most / 60)];
    return from ? t("eta_minutes", from, to) : t("eta_within", to);
  }
  return t("eta_hours", Math.floor(least / 1800) / 2, Math.ceil(most / 1800) / 2);
}

export function roomPanel(page, path, notes, { leave, rejoin, close, lapse }, signal) {
  const { clock, countdown, moment, sale, t } = page;
  let shown = "";      // the state on the panel
  let wanted;          // the attempt on it
  let told = Infinity; // the position said last
  let turn = new AbortController();
  signal.addEventListener("abort", () => turn.abort());

  const heading = h("h2", { tabindex: -1 });
  const text = h("p");
  const outlook = h("p", { class: "outlook" });
  const chosen = h("p", { class: "chosen" });
  const label = h("small");
  const digits = h("b", { class: "digits" });
  const face = h("p", { class: "face" }, label, digits);
  const bar = h("progress", { "aria-label": t("progress") });
  const buttons = h("div", { class: "do" });
  const fair = fairness(page, path, notes, signal);
  const el = h("section", { class: "room", hidden: true, "aria-label": t("room") },
    h("div", { class: "fate" }, heading, text, outlook, chosen), face, bar, h("div", { class: "foot" }, fair.el, buttons));
  page.slips.before(el);

  const what = (a) => `${page.pick(sale().items.find((i) => i.sku === a.sku)?.title) || a.sku} × ${a.quantity}`;
  const hour = (at) => (Math.abs(at - clock.now()) < 72e6
    ? new Date(at).toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" })
    : moment(at));
  const button = (word, work, kind) => h("button", { type: "button", class: kind, onclick: work }, t(word));

  // place is the server's document, wish the attempt that waits or is being bought.
  function paint(place, wish) {
    const inside = el.contains(document.activeElement);
    const is = place?.state || "";
    const fresh = is !== shown;
    shown = is;
    el.hidden = !is;
    el.dataset.state = is;
    turn.abort();
    turn = new AbortController();
    document.title = page.title;
    if (is) {
      speak(place, wish);
      figure(place, wish);
      fair.look(place);
    }
    if (fresh || wish !== wanted) page.run(); // the words on the buttons of the items
    wanted = wish;
    if (!fresh) return hint(place);
    told = place?.position || Infinity;
    buttons.replaceChildren(...choices());
    if (is) say(heading.textContent + ". " + text.textContent);
    if (inside) (is ? heading : document.querySelector("h1")).focus();
  }

  function speak(place, wish) {
    const at = Date.parse(place.draw_at || place.queue_opens_at);
    const is = shown;
    const [head, body] = {
      early: () => [t("q_early", moment(at)), t("r_early")],
      registered: () => [t("q_registered"), t("r_registered", hour(at))],
      waiting: () => [t(place.position === 1 ? "q_next" : "q_waiting"), about(t, place.eta_seconds, place.eta_error_seconds)],
      called: () => [t("q_called"), t(wish ? "r_called" : "r_choose")],
    }[is]?.() || [t("q_" + is), t("r_" + is)];
    heading.textContent = head;
    text.textContent = body;
    outlook.textContent = is === "waiting" && place.outlook === "unlikely" ? t("unlikely") : "";
    chosen.textContent = wish ? t("chosen", what(wish)) : is === "registered" || is === "waiting" ? t("unchosen") : "";
  }

  // The large figure with its bar, and the tab's title.
  function figure(place, wish) {
    const { entry, joined, position } = place;
    const until = Date.parse({ early: place.queue_opens_at, registered: place.draw_at, called: place.expires_at }[shown]);
    // A draw at the opening is counted down to at the head of the page.
    const crowd = shown === "registered" && joined && Math.abs(until - Date.parse(sale().opens_at)) < 1000;
    const put = (word, value) => {
      label.textContent = t(word);
      digits.textContent = value;
    };
    bar.hidden = shown !== "waiting";
    face.hidden = !until && bar.hidden;
    if (crowd) put("entrants", many(joined));
    if (shown === "waiting") {
      put("position", many(position));
      document.title = many(position) + " · " + page.title;
      const from = Math.max(notes.read(entry).from || 0, position);
      notes.write({ entry, from });
      bar.max = from;
      bar.value = from - position;
    }
    if (shown === "called") document.title = t("q_called") + " · " + page.title;
    if (until) countdown(clock, until, (left) => {
      if (!crowd) put("until_" + shown, page.clockFace(left));
      if (left) return;
      if (shown === "registered") heading.textContent = t("q_drawing");
      if (shown === "called" && !wish) lapse();
    }, turn.signal);
  }

  // Steps forward are said aloud when they are worth it: half-way each time.
  function hint(place) {
    if (shown !== "waiting" || place.position > told / 2) return;
    told = place.position;
    say(`${t("position")}: ${many(told)}. ${text.textContent}`);
  }

  function choices() {
    if (shown === "over") return [button("dismiss", close)];
    if (shown === "lapsed") return [button("rejoin", tell(rejoin), "go"), button("dismiss", close)];
    return [button("leave", sure)];
  }

  // Leaving costs the place, so it takes two presses.
  function sure() {
    const stay = button("stay", () => {
      buttons.replaceChildren(...choices());
      buttons.firstChild.focus();
    }, "go");
    buttons.replaceChildren(h("p", null, t("leave_sure")), stay, button("leave_yes", tell(leave)));
    stay.focus();
  }

  const tell = (work) => () => Promise.resolve(work()).catch((problem) => {
    if (!signal.aborted) say((text.textContent = page.sorry(problem)));
  });

  return { focus: () => heading.focus(), notes, paint };
}
