"use strict";
/**
 * Settings: how the overlay looks. One object for the page; who shows them listens.
 * @typedef {{layer: string|null, scale: number, colours: string, opacity: number, threshold: number|null,
 *   curtain: number, shown: boolean}} SettingsValues
 *   threshold: patches with smaller values are hidden (for ranks: larger ones); null hides none.
 *   curtain: fraction of the pane's width, from the left, that shows the bare slide.
 */
const Settings = (() => {
  /** @type {SettingsValues} */
  const values = {
    layer: null, scale: 0, colours: "viridis", opacity: 0.5, threshold: null, curtain: 0, shown: true,
  };
  const listeners = [];

  /** Change some settings and tell the listeners which. */
  function change(changes) {
    const changed = Object.keys(changes).filter((name) => values[name] !== changes[name]);
    if (!changed.length) return;
    Object.assign(values, changes);
    listeners.forEach((listener) => listener(changed));
  }

  return { values, change, listen: (listener) => listeners.push(listener) };
})();
