// Everything said to people, in their language. Only that language is loaded.
import { digits } from "./clock.js";
import { local } from "./dom.js";

let said = {};
export let lang = "en";

export async function speak(chosen) {
  lang = chosen === "zh" ? "zh" : "en";
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  said = (await (lang === "zh" ? import("./zh.js") : import("./en.js"))).default;
}

// The language chosen here before, else the first of the browser's that is spoken.
export const native = () =>
  local.get("sluice/lang") || navigator.languages.map((l) => l.slice(0, 2)).find((l) => l === "zh" || l === "en");

// Adds the words of a part of the page that is loaded later.
export const learn = async (en, zh) => Object.assign(said, (await (lang === "zh" ? zh : en)()).default);

export const t = (key, ...args) => (typeof said[key] === "function" ? said[key](...args) : said[key]);

// The sentence for a problem; a code from the future, or one that only a fault
// of this page can cause, gets a general one.
export const sorry = ({ code, status, fields }) =>
  t("e_" + code, fields) ?? t(status > 399 && status < 500 ? "e_invalid_request" : "e_internal");

const han = /\p{Script=Han}/u;

// A text in two languages ("Lamp · 台灯", or one a line) is shown in the reader's.
export function pick(text = "") {
  for (const mark of ["\n", " · "]) {
    const parts = text.split(mark);
    const own = parts.filter((part) => han.test(part) === (lang === "zh"));
    if (own.length && own.length < parts.length) return own.join(mark);
  }
  return text;
}

export function money({ amount, currency }) {
  const style = { style: "currency", currency, currencyDisplay: "narrowSymbol" };
  const places = new Intl.NumberFormat("en", style).resolvedOptions().maximumFractionDigits;
  const whole = amount % 10 ** places === 0;
  return new Intl.NumberFormat(lang, { ...style, minimumFractionDigits: whole ? 0 : places }).format(amount / 10 ** places);
}

// The moment, with its day unless that is today.
export function moment(time, now = Date.now()) {
  const at = new Date(time);
  const today = at.toDateString() === new Date(now).toDateString();
  const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const day = { weekday: "short", month: "short", day: "numeric" };
  return new Intl.DateTimeFormat(lang === "zh" ? "zh-CN" : "en-GB", today ? clock : { ...day, ...clock }).format(at);
}

// The time left on a clock; past four days nobody counts seconds.
export const clockFace = (ms) => (ms < 345600000 ? digits(ms) : t("days", Math.ceil(ms / 86400000)));
