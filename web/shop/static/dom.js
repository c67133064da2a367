// Elements are built, never parsed from text: data cannot become markup.
export function h(tag, attrs, ...kids) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {})) {
    if (k.startsWith("on")) el.addEventListener(k.slice(2), v);
    else if (v != null && v !== false) el.setAttribute(k, v === true ? "" : v);
  }
  el.append(...kids.flat().filter((kid) => kid != null && kid !== false));
  return el;
}

// A picture, or an empty place for one that is not there.
export function picture(src, attrs) {
  return h("img", { src: src || false, alt: "", width: 480, height: 480, ...attrs, onerror: (e) => e.currentTarget.removeAttribute("src") });
}

// Says it to screen readers.
export function say(text) {
  document.getElementById("say").textContent = text;
}

export function sleep(ms, signal) {
  return new Promise((done, fail) => {
    const stop = () => fail(signal.reason);
    if (signal?.aborted) return stop();
    signal?.addEventListener("abort", stop, { once: true });
    setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      done();
    }, ms);
  });
}

// ms, spread by half up and down, so that a crowd does not march in step.
export const jitter = (ms) => ms * (0.5 + Math.random());

// Resolves when the page is being looked at.
export function visible(signal) {
  return new Promise((done) => {
    if (!document.hidden) return done();
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      done();
    };
    document.addEventListener("visibilitychange", look, { signal });
    signal.addEventListener("abort", done);
  });
}

// Web storage that survives being forbidden: then it lasts as long as the page.
export function vault(name) {
  const memory = new Map();
  const real = () => window[name];
  const attempt = (f, fallback) => {
    try {
      return f(real());
    } catch {
      return fallback();
    }
  };
  return {
    get: (k) => attempt((s) => s.getItem(k), () => memory.get(k) ?? null),
    set: (k, v) => attempt((s) => s.setItem(k, v), () => memory.set(k, v)),
    drop: (k) => attempt((s) => s.removeItem(k), () => memory.delete(k)),
    keys: () => attempt((s) => Object.keys(s), () => [...memory.keys()]),
  };
}

export const local = vault("localStorage");
