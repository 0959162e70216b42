/** Who is looking: a token from the address, kept for this tab alone. */

const KEY = "jobledger-token";

/**
 * Take the token out of the address (`#token=...`). A fragment is not sent to a server, and once
 * it is removed it is neither in the history nor in a link that somebody copies. Returns whether
 * there was one.
 */
export function takeToken() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get("token");
  if (given === null) return false;
  setToken(given);
  fragment.delete("token");
  history.replaceState(null, "", location.pathname + location.search + (fragment.size ? `#${fragment}` : ""));
  return true;
}

/** Keep a token for this tab; an empty one forgets it. What is no part of a token is left out. */
export function setToken(value) {
  const visible = value.replace(/[^\x21-\x7e]/g, ""); // a header with other characters cannot be sent
  if (visible) sessionStorage.setItem(KEY, visible);
  else sessionStorage.removeItem(KEY);
}

/** Return the token, or an empty string. */
export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Whether the token reads some jobs and changes none: a watch token. */
export function onlyWatches() {
  return token().startsWith("jlw_");
}
