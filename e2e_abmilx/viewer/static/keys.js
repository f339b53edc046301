"use strict";
/** Keys: what the keyboard does outside fields, and the dialog that lists it. */
const Keys = (() => {
  const field = (id) => document.getElementById(id);
  const dialog = field("help");

  /** Listen; actions has step(by) and the run tells whether reviews can be saved. */
  function listen(run, step) {
    const reviews = run.read_only ? [] : [
      ["a", "agree", () => Reviews.press("agree")], ["d", "disagree", () => Reviews.press("disagree")],
      ["f", "artefact", () => Reviews.press("artefact")], ["n", "write a note (Ctrl+Enter saves, Esc leaves)", () => Reviews.press("note")],
    ];
    const keys = [
      ["j", "next case", () => step(1)], ["k", "previous case", () => step(-1)], ...reviews,
      ["+", "zoom in", () => Panes.list[0].zoomBy(1.5)], ["-", "zoom out", () => Panes.list[0].zoomBy(1 / 1.5)],
      ["0", "whole slide", () => Panes.list[0].home()], ["/", "filter the cases", () => field("filter").focus()],
      ["h", "these keys (also ?)", help],
    ];
    const actions = new Map(keys.map(([key, , action]) => [key, action]));
    actions.set("?", help).set("=", actions.get("+"));
    list([...keys, ["space", "held down: hide the overlay (on a button it presses the button)"], ["← ↑ → ↓", "move the slide, when it has the focus"]]);
    document.addEventListener("keydown", (event) => press(event, actions));
    document.addEventListener("keyup", (event) => { if (event.key === " ") Panes.hide(false); });
    window.addEventListener("blur", () => Panes.hide(false));
    field("help-open").addEventListener("click", help);
    field("help-close").addEventListener("click", () => dialog.close());
  }

  /** List the keys in the dialog. */
  function list(keys) {
    for (const [key, meaning] of keys) {
      const row = field("help-keys").appendChild(document.createElement("tr"));
      const name = row.appendChild(document.createElement("th"));
      name.scope = "row";
      name.appendChild(document.createElement("kbd")).textContent = key;
      row.appendChild(document.createElement("td")).textContent = meaning;
    }
  }

  /** Show the dialog, or close it. */
  function help() {
    if (dialog.open) dialog.close();
    else dialog.showModal();
  }

  /** Tell whether an element takes the text that is typed. */
  function isTyping(target) {
    return target.closest("textarea, select, input:not([type=range]):not([type=checkbox])") !== null;
  }

  /** Act on a key, unless somebody is typing or the key belongs to a button. */
  function press(event, actions) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || isTyping(event.target)) return;
    if (dialog.open && !["h", "?"].includes(event.key)) return;
    if (event.key === " ") hide(event);
    else if (event.key.startsWith("Arrow")) move(event);
    else if (actions.has(event.key.toLowerCase())) {
      event.preventDefault();
      actions.get(event.key.toLowerCase())();
    }
  }

  /** Hide the overlay while the key is held; on a button the space bar presses the button. */
  function hide(event) {
    if (event.target.closest("button, summary, input[type=checkbox]")) return;
    event.preventDefault();
    if (!event.repeat) Panes.hide(true);
  }

  /** Move the slide that has the focus. */
  function move(event) {
    const pane = Panes.list.find(({ stage }) => stage.contains(event.target));
    if (!pane || !pane.ready) return;
    event.preventDefault();
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    pane.panBy(x / 8, y / 8);
  }

  return { listen };
})();
