/** Which page is shown: `/` is the list, `/jobs/ID` is one job. Links change the page in place. */

import { h, setClass, setText } from "./dom.js";
import { parseFilter } from "./filter.js";
import { jobPage } from "./job_page.js";
import { listPage } from "./list_page.js";
import { setToken, takeToken, token } from "./session.js";

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const linkState = document.getElementById("link-state");
let stop = () => {};
let listed = "/"; // the address of the list that was shown last

/** What every page is given. */
function newView() {
  let current = true;
  return {
    go,
    listed,
    end() {
      current = false;
      document.querySelector("dialog")?.close(); // it asks about what was shown
    },
    /** Say whether what is on the screen is what is so. */
    connected(yes) {
      if (!current) return;
      if (yes) showLink("live", "live");
      else showLink("lost", "not connected", "The connection is lost. What you see may no longer be so. Reconnecting …");
    },
    /** Say that the service refuses to show this. */
    refused(problem) {
      if (current) showRefusal(problem);
    },
  };
}

function showLink(kind, text, warning = "") {
  document.body.classList.toggle("stale", warning !== "");
  setClass(linkState, `link-state ${kind}`);
  setText(linkState, text);
  setText(banner, warning);
}

function show() {
  stop();
  if (location.pathname === "/") listed = `/${location.search}`;
  const view = newView();
  const job = /^\/jobs\/([^/]+)\/?$/.exec(location.pathname);
  const query = new URLSearchParams(location.search);
  document.title = "Jobledger";
  showLink("", "connecting");
  const end = job
    ? jobPage(main, decodeURIComponent(job[1]), query.get("user_id") ?? "", view)
    : listPage(main, parseFilter(location.search), view);
  stop = () => {
    view.end();
    end();
  };
}

function go(address) {
  history.pushState(null, "", address);
  show();
  scrollTo(0, 0);
  main.querySelector("h1")?.focus({ preventScroll: true });
}

function showRefusal(problem) {
  stop();
  stop = () => {};
  showLink("lost", "refused");
  const missing = problem.status === 404;
  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setToken(form.get("token"));
    const query = new URLSearchParams(location.search);
    const user = form.get("user").trim();
    if (user) query.set("user_id", user);
    go(query.size ? `${location.pathname}?${query}` : location.pathname);
  };
  const field = (name, label, type, value) => h("p", { class: "field" }, h("label", { for: `r-${name}` }, label), h("input", { id: `r-${name}`, name, type, value, autocomplete: "off" }));
  main.replaceChildren(
    h("section", { class: "refusal" },
      h("h1", { tabindex: "-1" }, missing ? "There is no such job" : "The service does not show this"),
      h("p", {}, problem.message),
      missing
        ? h("p", {}, h("a", { href: "/" }, "All jobs"))
        : h("form", { class: "filter-form", submit },
          field("user", "Owner", "text", new URLSearchParams(location.search).get("user_id") ?? ""),
          field("token", "Token", "password", token()),
          h("button", { type: "submit", class: "primary" }, "Try again"))),
  );
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const page = link.origin === location.origin && !link.target && (link.pathname === "/" || link.pathname.startsWith("/jobs/"));
  if (!page) return;
  event.preventDefault();
  // A change of the address, if only of what follows `#`, shows the page anew.
  if (link.matches(".skip")) main.querySelector("h1").focus();
  else go(link.pathname + link.search);
});
addEventListener("popstate", show);
addEventListener("hashchange", () => takeToken() && show());
takeToken();
show();
