/** Questions before something is done. */

import { h } from "./dom.js";

/**
 * Ask, and do it. `act(value)` is awaited while the question stays open; what it throws is shown
 * there. Escape and "Keep as it is" change nothing. Returns whether it was done.
 */
export function ask({ title, body = [], confirm, danger = false, input, act }) {
  return new Promise((resolve) => {
    let done = false;
    const field = input && h("input", { type: "text", maxlength: "512", id: "dialog-input" });
    const problem = h("p", { class: "problem", role: "alert" });
    const yes = h("button", { type: "submit", class: danger ? "danger" : "primary" }, confirm);
    const no = h("button", { type: "button", click: () => dialog.close() }, "Keep as it is");
    const submit = async (event) => {
      event.preventDefault();
      yes.disabled = true;
      problem.textContent = "";
      try {
        await act(field?.value ?? "");
        done = true;
        dialog.close();
      } catch (error) {
        problem.textContent = error.message;
        yes.disabled = false;
        yes.focus(); // which it lost when it was disabled
      }
    };
    const form = h(
      "form",
      { submit },
      h("h2", { id: "dialog-title" }, title),
      body,
      input && [h("label", { for: "dialog-input" }, input), field],
      problem,
      h("div", { class: "buttons" }, no, yes),
    );
    const dialog = open("dialog-title", form, () => resolve(done));
  });
}

/** Open a dialog that is removed when it closes. */
export function open(labelledBy, content, onClose) {
  const close = () => {
    dialog.remove();
    onClose();
  };
  const dialog = h("dialog", { "aria-labelledby": labelledBy, close }, content);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
