// The check for a person: a piece to slide into its gap, or a sum to work out.
// ask answers the clearance; a dialog that is closed is a Problem "unproved".
import { h, say } from "./dom.js";

const drawn = (tag, attrs) => {
  const el = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attrs)) el.setAttribute(k, v);
  return el;
};

export function ask(page, path, signal) {
  const { Problem, post, sorry, t } = page;
  const title = h("h2", { id: "check-title" }, t("check_title"));
  const how = h("p", { id: "check-how" });
  const stage = h("div", { class: "stage" });
  const fault = h("p", { class: "fault", role: "alert" });
  const send = h("button", { type: "submit", class: "go" }, t("check_send"));
  const anew = h("button", { type: "button", onclick: () => fresh() }, t("check_anew"));
  const form = h("form", { method: "dialog", onsubmit: (e) => {
    e.preventDefault();
    submit();
  } }, title, how, stage, fault, h("div", { class: "do" }, send, anew, h("button", { type: "button", onclick: () => dialog.close() }, t("check_close"))));
  const dialog = h("dialog", { class: "check", "aria-labelledby": "check-title", "aria-describedby": "check-how" }, form);

  let now = null;    // the challenge on show
  let busy = false;
  let answer = () => NaN;
  let expiry;

  const load = (on) => {
    busy = on;
    send.ariaDisabled = String(on || !now);
    anew.ariaDisabled = String(on);
    stage.setAttribute("aria-busy", on);
  };

  // Another challenge; why says what became of the one before.
  async function fresh(why = "") {
    if (busy) return;
    load(true);
    now = null;
    clearTimeout(expiry);
    fault.textContent = why;
    try {
      now = await page.patiently(() => post(path, {}), signal, (p) => (fault.textContent = sorry(p)), 5);
      fault.textContent = why;
      how.textContent = t("check_" + now.kind);
      const { el, focus, value } = (now.kind === "slider" ? slider : sum)(now, t);
      answer = value;
      stage.replaceChildren(el);
      if (document.activeElement !== anew) focus();
      expiry = setTimeout(() => fresh(t("check_late")), Math.max(5000, Date.parse(now.expires_at) - page.clock.now() - 1000));
    } catch (problem) {
      if (!signal.aborted) fault.textContent = sorry(problem);
    } finally {
      load(false);
    }
  }

  let finish;
  async function submit() {
    if (busy || !now) return;
    const given = answer();
    if (!Number.isInteger(given)) return void (fault.textContent = t("check_empty"));
    load(true);
    fault.textContent = "";
    try {
      const { clearance } = await page.patiently(() => post(path + "/answers", { challenge: now.challenge, answer: given }), signal, () => {}, 5);
      say(t("check_done"));
      finish(clearance);
      dialog.close();
    } catch (problem) {
      load(false);
      if (signal.aborted) return;
      if (problem.code === "challenge_failed") await fresh(t("check_wrong"));
      else fault.textContent = sorry(problem);
    } finally {
      busy = false;
    }
  }

  const back = document.activeElement;
  document.body.append(dialog);
  load(false);
  dialog.showModal();
  fresh();
  return new Promise((done, fail) => {
    finish = done;
    signal.addEventListener("abort", () => dialog.close());
    dialog.addEventListener("close", () => {
      clearTimeout(expiry);
      dialog.remove();
      back?.focus();
      fail(signal.aborted ? signal.reason : new Problem("unproved", 403)); // too late once it is done
    });
  });
}

// The picture is an SVG, so that a pixel of the challenge stays one at any width.
// A range input slides the piece: it knows pointers, fingers, arrow keys and what
// to tell a screen reader. The piece itself can be dragged too.
function slider(challenge, t) {
  const { width, height, piece_width, piece_height, piece_y = 0 } = challenge;
  const most = width - piece_width;
  const piece = drawn("image", { href: challenge.piece, x: 0, y: piece_y, width: piece_width, height: piece_height, class: "piece" });
  const scene = drawn("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": true });
  scene.append(drawn("image", { href: challenge.image, width, height }), piece);
  const input = h("input", { type: "range", min: 0, max: most, step: 1, value: 0, "aria-label": t("check_slide"), "aria-valuenow": 0, "aria-valuemin": 0, "aria-valuemax": most });

  function move(x) {
    input.value = Math.max(0, Math.min(most, Math.round(x)));
    show();
  }
  function show() {
    piece.setAttribute("x", input.value);
    input.setAttribute("aria-valuenow", input.value);
    input.setAttribute("aria-valuetext", t("check_at", input.value, most));
  }
  input.addEventListener("input", show);
  input.addEventListener("keydown", (e) => {
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[e.key];
    if (!way || !e.shiftKey) return;
    e.preventDefault();
    move(+input.value + 10 * way);
  });

  let grip = null; // where the piece was taken
  const x = (e) => (e.clientX - scene.getBoundingClientRect().left) * (width / scene.getBoundingClientRect().width);
  piece.addEventListener("pointerdown", (e) => {
    grip = x(e) - input.value;
    piece.setPointerCapture(e.pointerId);
    e.preventDefault();
  });
  piece.addEventListener("pointermove", (e) => grip != null && move(x(e) - grip));
  for (const end of ["pointerup", "pointercancel"]) piece.addEventListener(end, () => (grip = null));

  show();
  return { el: h("div", { class: "slide" }, scene, input), focus: () => input.focus(), value: () => Number(input.value) };
}

function sum(challenge, t) {
  const { image, width, height } = challenge;
  const input = h("input", { type: "text", inputmode: "numeric", pattern: "-?[0-9]*", autocomplete: "off", maxlength: 6, "aria-label": t("check_sum") });
  return {
    el: h("div", { class: "sum" }, h("img", { src: image, width, height, alt: t("check_sum_alt") }), input),
    focus: () => input.focus(),
    value: () => (/^\s*-?\d+\s*$/.test(input.value) ? Number(input.value) : NaN),
  };
}
