// Starts the page: who, what time, which view. A change of language or shopper,
// and a return through the browser's history, simply show the view again.
import { get } from "./api.js";
import { ServerClock } from "./clock.js";
import { h, local } from "./dom.js";
import { listPage } from "./list.js";
import { salePage } from "./sale.js";
import { demo, enter, mint, user } from "./session.js";
import { lang, native, sorry, speak, t } from "./words.js";

const main = document.getElementById("main");
const clock = new ServerClock(async () => (await get("/v1/time")).now);
let life = new AbortController();

async function show() {
  life.abort();
  life = new AbortController();
  const { signal } = life;
  frame();
  const sale = /^\/a\/([^/]+)$/.exec(location.pathname);
  main.setAttribute("aria-busy", true);
  try {
    await (sale ? salePage(main, decodeURIComponent(sale[1]), clock, signal) : listPage(main, clock, signal));
  } catch (problem) {
    if (signal.aborted) return;
    main.replaceChildren(
      h("h1", { tabindex: -1 }, sorry(problem)),
      h("p", { class: "do" },
        h("button", { type: "button", onclick: show }, t("again")),
        sale && h("a", { href: "/" }, t("back"))));
  }
  if (!signal.aborted) main.removeAttribute("aria-busy");
}

// What surrounds every view.
function frame() {
  for (const el of document.querySelectorAll("[data-t]")) el.textContent = t(el.dataset.t);
  for (const el of document.querySelectorAll("[data-lang]")) el.ariaPressed = String(el.dataset.lang === lang);
  document.getElementById("who").replaceChildren(...(demo && user
    ? [t("who", user), " ", h("button", { type: "button", onclick: () => mint().then(show) }, t("other"))]
    : []));
}

for (const el of document.querySelectorAll("[data-lang]")) {
  el.addEventListener("click", () => {
    local.set("sluice/lang", el.dataset.lang);
    speak(el.dataset.lang).then(show);
  });
}
addEventListener("pageshow", (e) => e.persisted && show());

await Promise.all([speak(native()), enter().catch(() => {}), clock.sync(2)]);
clock.run();
show();
