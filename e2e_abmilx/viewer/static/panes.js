"use strict";
/** Panes: the slide of the case once, or once per run where two runs are compared; pan and zoom are locked together. */
const Panes = (() => {
  /** @type {Pane[]} */
  const list = [];
  let leader = null;   // the pane that people moved last; the other one follows
  let following = false;

  /** Make one pane per run. */
  function make(host, runs, moved) {
    const shown = runs.slice(0, 2);
    host.classList.toggle("two", shown.length > 1);
    for (const run of shown) {
      const pane = new Pane(host, shown.length > 1 ? run : "");
      list.push(pane);
      for (const event of ["pan", "zoom"]) pane.viewer.addHandler(event, () => { if (!following) leader = pane; });
      for (const event of ["viewport-change", "animation-finish"]) pane.viewer.addHandler(event, () => follow(pane));
      pane.viewer.addHandler("animation-finish", moved);
      pane.viewer.addHandler("open", moved);
    }
    leader = list[0];
  }

  /** Show in the other panes what the leader shows. */
  function follow(pane) {
    if (pane !== leader || following || !pane.ready) return;
    following = true;
    for (const other of list) {
      if (other === pane || !other.ready) continue;
      other.viewer.viewport.zoomTo(pane.viewer.viewport.getZoom(true), null, true);
      other.viewer.viewport.panTo(pane.viewer.viewport.getCenter(true), true);
    }
    following = false;
  }

  /** Open a slide in all panes. */
  function open(slide, view) {
    leader = list[0];
    list.forEach((pane) => pane.open(slide, view));
  }

  /** Mark a patch in all panes and fly there. */
  function fly(bounds) {
    list.forEach((pane) => pane.overlay.markPatch(bounds));
    leader = list[0];
    list[0].fly(bounds);
  }

  /** Hide or show all overlays while a key is held. */
  function hide(hidden) {
    for (const pane of list) {
      pane.overlay.hidden = hidden;
      pane.overlay.draw();
    }
  }

  /** Give the keyboard to the slide. */
  function focus() {
    list[0].viewer.canvas.focus({ preventScroll: true });
  }

  return { list, make, open, fly, hide, focus };
})();
