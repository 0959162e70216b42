/** Makes elements. Text stays text: nothing that a job says is ever read as HTML. */

/**
 * Make an element. An attribute whose value is a function listens for the event of that name; one
 * that is false, null or undefined is left out. Children that are null or false are left out, too.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

/** Set the text of an element if it is another one: what has not changed is not drawn again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set the class of an element if it is another one. */
export function setClass(element, name) {
  if (element.className !== name) element.className = name;
}

/**
 * Replace what is in an element by what `make` returns; return whether it was. A link or a button
 * that has the focus keeps it, as the one of the same name. One that is pressed is not replaced
 * before the mouse is released: the click would be lost.
 */
export function redraw(element, make) {
  if (element.matches(":active")) return false;
  // "Pause" becomes "Resume": the same button for who uses it.
  const nameOf = (one) => one.getAttribute("href") ?? one.getAttribute("aria-label")?.replace(/^\w+/, "");
  const focused = element.contains(document.activeElement) && nameOf(document.activeElement);
  element.replaceChildren(...make());
  if (focused) [...element.querySelectorAll("a, button")].find((one) => nameOf(one) === focused)?.focus();
  return true;
}

/** Say something to those who do not see the screen. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** Return a function that calls `draw` in the next frame, once however often it is called. */
export function oncePerFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}
