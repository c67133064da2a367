// An attempt is one wish to buy, under one Idempotency-Key. It is written down
// before it is sent and kept until its reservation has ended, so a double
// click, a retry, a reload and a second tab all say the same thing.
import { patiently, post } from "./api.js";
import { local } from "./dom.js";
import { user } from "./session.js";

// A click that got no answer is taken up again after a reload, if it was recent.
const resumeWithin = 60000;

const shelf = (activity) => ["sluice", encodeURIComponent(user), activity, ""].join("/");
const name = (a) => shelf(a.activity) + a.sku + "/" + a.quantity;

// getRandomValues works on plain http too, randomUUID does not.
const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");

const load = (key) => {
  try {
    return JSON.parse(local.get(key));
  } catch {
    return null;
  }
};

export const save = (a) => local.set(name(a), JSON.stringify(a));
// A later attempt for the same terms takes the place of an ended one.
const current = (a) => load(name(a))?.key === a.key;
export const forget = (a) => current(a) && local.drop(name(a));

// The attempt for these terms: the one under way, else a new one.
export function begin(activity, sku, quantity) {
  let a = { activity, sku, quantity };
  const known = load(name(a));
  a = known && !known.over ? known : { ...a, key: newKey() };
  a.clicked = Date.now();
  save(a);
  return a;
}

export const known = (activity) =>
  local.keys().filter((k) => k.startsWith(shelf(activity))).map(load).filter(Boolean);

// waits: it stands in the waiting room.
export const unanswered = (a) => !a.order && !a.over && (a.waits || Date.now() - a.clicked < resumeWithin);

// Buys, showing what the gate has handed out. Refusals are thrown as problems; the key stays for the next click.
export async function buy(a, signal, waiting, shows) {
  try {
    const receipt = await patiently(
      () => post(`/v1/activities/${a.activity}/purchases`, { sku: a.sku, quantity: a.quantity, ...shows }, { "Idempotency-Key": a.key }),
      signal,
      waiting,
    );
    Object.assign(a, { order: receipt.order, reservation: receipt.reservation });
    save(a);
    return receipt;
  } catch (problem) {
    if (problem.code === "idempotency_mismatch") forget(a);
    else if (problem.status) save({ ...a, clicked: 0, waits: 0 });
    throw problem;
  }
}

// The reservation has ended: the next click is a new wish.
export function end(a) {
  a.over = true;
  if (current(a)) save(a);
}
