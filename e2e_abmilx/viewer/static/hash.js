"use strict";
/**
 * Hash: the state of the page in its address, so that a link shows the same view. Values that are not understood are
 * ignored.
 */
const Hash = (() => {
  const whole = (text) => (/^\d{1,9}$/.test(text ?? "") ? Number(text) : null);
  const number = (text, low = -1e9, high = 1e9) => {
    const value = Number(text);
    return /^-?[\d.]+(e-?\d+)?$/i.test(text ?? "") && value >= low && value <= high ? value : null;
  };
  let timer = 0;
  let known = "";  // the address as it was last read or written

  /** Return what the address says: {case, slide, view, settings}; what it does not say is null or absent. */
  function read() {
    known = location.hash;
    const given = new URLSearchParams(location.hash.slice(1));
    const [x, y, zoom] = [number(given.get("x")), number(given.get("y")), number(given.get("zoom"), 1e-6, 1e3)];
    const settings = {
      layer: given.get("layer"), scale: whole(given.get("scale")), opacity: number(given.get("opacity"), 0, 1),
      curtain: number(given.get("curtain"), 0, 1),
      colours: Colours.sequential.find((name) => name === given.get("colours")) ?? null,
    };
    const said = Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== null));
    const threshold = given.get("threshold");
    said.threshold = said.layer === "rank" ? whole(threshold) || null : number(threshold);
    const view = [x, y, zoom].includes(null) ? null : { x, y, zoom };
    return { case: whole(given.get("case")), slide: whole(given.get("slide")), view, settings: said };
  }

  /** Return the address's part for a state. */
  function spell(id, slide, view, { layer, scale, colours, opacity, threshold, curtain }) {
    const said = { case: id, slide, x: Number(view.x.toFixed(2)), y: Number(view.y.toFixed(2)), zoom: Number(view.zoom.toPrecision(7)) };
    if (layer) said.layer = layer;
    Object.assign(said, { scale, colours, opacity, curtain });
    if (threshold !== null) said.threshold = threshold;
    return `#${new URLSearchParams(said)}`;
  }

  /** Write the state a little later, once for many changes; a link pasted in the meantime stays, to be followed. */
  function write(state) {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const said = state();
      if (!said || said === known || location.hash !== known) return;
      history.replaceState(null, "", said);
      known = location.hash;
    }, 150);
  }

  return { read, spell, write };
})();
