// Who is shopping. The shop's own page hands the token over in the fragment,
// which never reaches a server log; in a demo the server hands out shoppers.
import { local, vault } from "./dom.js";

const tab = vault("sessionStorage");
export const demo = document.querySelector('meta[name="sluice-demo"]').content === "1";
export let token = "";
export let user = "";

function claims(jwt) {
  try {
    const part = jwt.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0))));
  } catch {
    return {};
  }
}

function adopt(jwt) {
  token = jwt;
  user = claims(jwt).sub || "";
  tab.set("sluice/token", jwt);
}

export async function enter() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  if (fragment.has("token")) {
    adopt(fragment.get("token"));
    history.replaceState(null, "", location.pathname + location.search);
    return;
  }
  const kept = tab.get("sluice/token");
  if (kept && !(claims(kept).exp * 1000 < Date.now())) return adopt(kept);
  if (demo) await mint(local.get("sluice/shopper"));
}

// Mints the named demo shopper, or a new one.
export async function mint(name) {
  const answer = await fetch("/demo/token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(name ? { user: name } : {}),
  });
  if (!answer.ok) return;
  const given = await answer.json();
  adopt(given.token);
  user = given.user;
  local.set("sluice/shopper", user);
}

// The token was refused. Answers whether there is a fresh one to try.
export async function renew() {
  token = "";
  tab.drop("sluice/token");
  if (demo) await mint(user || local.get("sluice/shopper"));
  return token !== "";
}
