// How the order of the waiting room came about, and a way to check it: the shop
// publishes a seed's fingerprint before anybody can join, the seed at the draw,
// and everybody's place follows from it (see draw.js, loaded for that).
import { h } from "./dom.js";

export function fairness(page, path, notes, signal) {
  const { get, t } = page;
  const facts = h("dl");
  const verdict = h("p", { class: "verdict", role: "status" });
  const act = h("button", { type: "button", hidden: true, onclick: verify }, t("check"));
  const el = h("details", { class: "fair", ontoggle: () => el.open && explain().catch(() => {}) },
    h("summary", null, t("fair")), h("p", null, t("fair_how")), facts, verdict, act);
  let place = {};
  let result = ""; // of the check of this entry
  let checking = false;

  // What is on show follows the place; once open, it is asked for again at the draw.
  function look(now) {
    const turned = now.state !== place.state;
    if (now.entry !== place.entry) result = "";
    place = now;
    el.hidden = !now.entry;
    if (now.commitment && !notes.read(now.entry).commitment) notes.write({ entry: now.entry, commitment: now.commitment });
    if (turned && el.open && !el.hidden) explain().catch(() => {});
  }

  async function explain() {
    const { entry, number } = place;
    const seen = notes.read(entry).commitment;
    const draw = await page.patiently(() => get(path + "/draw"), signal, () => {}, 3);
    if (entry !== place.entry || checking) return;
    const rows = { entry: `#${number} · ${entry}`, commitment: seen || draw.commitment, seed: draw.drawn && draw.seed, digest: draw.drawn && draw.digest };
    facts.replaceChildren(...Object.keys(rows).filter((k) => rows[k]).map((k) =>
      h("div", null, h("dt", null, t("f_" + k)), h("dd", { class: "id" }, rows[k]))));
    verdict.textContent = result || t(!draw.drawn ? "not_drawn" : number < draw.drawn_entries ? "can_check" : "came_after");
    act.hidden = !!result || !draw.drawn || number >= draw.drawn_entries;
  }

  async function verify() {
    const { entry, number, position } = place;
    act.hidden = checking = true;
    try {
      const { check } = await import("./draw.js");
      const found = await check({
        entry, number, position, seen: notes.read(entry).commitment,
        draw: await get(path + "/draw"),
        entries: (from) => page.patiently(() => get(`${path}/draw/entries?from=${from}`), signal),
        progress: (part) => (verdict.textContent = t("checking_draw", Math.round(part * 100))),
      }, signal);
      const n = (k) => k.toLocaleString(document.documentElement.lang);
      result = found.fault ? t("v_" + found.fault) : t("checked", n(found.place), n(found.of));
      el.dataset.checked = found.fault || "ok";
      verdict.textContent = result;
    } catch (problem) {
      if (signal.aborted) return;
      verdict.textContent = page.sorry(problem);
      act.hidden = false;
    } finally {
      checking = false;
    }
  }

  return { el, look };
}
