"use strict";
/** Controls: the fields of the overlay and its colour bar. */
const Controls = (() => {
  const field = (id) => document.getElementById(id);
  const STEPS = 1000;  // of the threshold's slider
  let range = null;    // of the layer that is shown
  let layer = null;

  /** Fill a select with options of [value, text]; it is of no use with fewer than two. */
  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, String(value) === String(chosen))));
    select.disabled = options.length < 2;
  }

  /** Listen to the fields. */
  function listen() {
    const change = (id, event, changes) => field(id).addEventListener(event, () => Settings.change(changes(field(id))));
    change("layer", "change", (select) => ({ layer: select.value, threshold: null }));
    change("scale", "change", (select) => ({ scale: Number(select.value) }));
    change("colours", "change", (select) => ({ colours: select.value }));
    change("opacity", "input", (slider) => ({ opacity: Number(slider.value) }));
    change("curtain", "input", (slider) => ({ curtain: Number(slider.value) }));
    change("threshold", "input", (slider) => ({ threshold: thresholdAt(Number(slider.value) / STEPS) }));
    change("shown", "change", (box) => ({ shown: box.checked }));
    Settings.listen(showValues);
  }

  /** Offer the layers and scales that the maps of a slide have. */
  function offer(maps, shownLayer, shownRange) {
    layer = shownLayer;
    range = shownRange;
    const names = [...new Set(maps.flatMap((map) => map.layers.map(({ name }) => name)))];
    fill(field("layer"), names.map((name) => [name, name]), layer && layer.name);
    offerScales(maps[0]);
    const colours = layer && layer.kind === "diverging" ? [Colours.diverging] : Colours.sequential;
    fill(field("colours"), colours.map((name) => [name, name]), Settings.values.colours);
    for (const id of ["opacity", "threshold", "curtain", "shown"]) field(id).disabled = !layer;
    field("threshold-label").textContent = layer && layer.kind === "rank" ? "Top ranks" : "Threshold";
    showValues();
  }

  /** Offer the scales of a map that have patches, by their µm/px. */
  function offerScales(map) {
    const indices = map ? Layers.filled(map) : [];
    const options = indices.map((index, place) => {
      const name = indices.length < 2 ? "" : place === 0 ? "fine, " : place === indices.length - 1 ? "coarse, " : "middle, ";
      return [index, name + Numbers.resolution(map.scales[index].mpp)];
    });
    fill(field("scale"), options, map && Layers.scaleIndex(map, Settings.values.scale));
  }

  /** Return the threshold at a place of its slider, 0 to 1; 0 hides nothing. Ranks are spaced by equal ratios. */
  function thresholdAt(place) {
    if (place === 0 || !range) return null;
    if (range.kind === "rank") return Math.round(range.high ** (1 - place));
    return range.kind === "diverging" ? place * range.high : range.low + place * (range.high - range.low);
  }

  /** Return the place of a threshold on its slider, 0 to 1. */
  function placeOf(threshold) {
    if (threshold === null || !range || range.high === range.low) return 0;
    if (range.kind === "rank") return range.high > 1 ? 1 - Math.log(Math.max(1, threshold)) / Math.log(range.high) : 0;
    return range.kind === "diverging" ? threshold / range.high : (threshold - range.low) / (range.high - range.low);
  }

  /** Return the threshold in words. */
  function thresholdText(threshold) {
    if (threshold === null || !layer) return "all shown";
    if (layer.kind === "rank") return `top ${Numbers.grouped(threshold)}`;
    return `${layer.kind === "diverging" ? "magnitude " : ""}≥ ${Layers.text(threshold, layer)}`;
  }

  /** Set a slider and say its value in words. */
  function showSlider(id, value, text) {
    if (Number(field(id).value) !== value) field(id).value = value;
    field(id).setAttribute("aria-valuetext", text);
    field(`${id}-value`).textContent = text;
  }

  /** Show the settings in the fields. */
  function showValues() {
    const { opacity, threshold, curtain, shown } = Settings.values;
    showSlider("opacity", opacity, Numbers.percent(opacity));
    showSlider("curtain", curtain, curtain ? `from ${Numbers.percent(curtain)}` : "open");
    showSlider("threshold", Math.round(STEPS * placeOf(threshold)), thresholdText(threshold));
    field("shown").checked = shown;
    showLegend();
  }

  /** Draw the colour bar with the values at its ends and its middle. */
  function showLegend() {
    field("legend").hidden = !layer;
    if (!layer) return;
    const bar = field("legend-bar");
    const table = Colours.table(layer.kind === "diverging" ? Colours.diverging : Settings.values.colours);
    const context = bar.getContext("2d");
    const pixels = context.createImageData(256, 1);
    for (let i = 0; i < 256; i++) pixels.data.set([table[3 * i], table[3 * i + 1], table[3 * i + 2], 255], 4 * i);
    context.putImageData(pixels, 0, 0);
    const { kind, low, high, below, above } = range;
    const middle = kind === "rank" ? Math.round((1 + high) / 2) : (low + high) / 2;
    const number = kind === "rank" ? Numbers.grouped : Numbers.short;
    const [left, right] = kind === "rank" ? [high, low] : [low, high];
    const texts = [(below ? "≤ " : "") + number(left), number(middle), (above ? "≥ " : "") + number(right)];
    ["low", "middle", "high"].forEach((end, index) => { field(`legend-${end}`).textContent = texts[index]; });
    field("legend-caption").textContent = layer.kind === "rank" ? "rank in the case, 1 = highest attention" : [layer.name, layer.unit].filter(Boolean).join(", ");
    bar.setAttribute("aria-label", `Colour bar: ${texts[0]} to ${texts[2]} ${layer.unit}`);
  }

  return { listen, offer };
})();
