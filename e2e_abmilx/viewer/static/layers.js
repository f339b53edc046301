"use strict";
/**
 * Layers: the maps of a case, decoded, and what a layer says about its patches.
 * @typedef {{name: string, unit: string, kind: "sequential"|"diverging"|"rank", factor: number}} Layer
 * @typedef {{x: number, y: number, pitch: number, columns: number, rows: number, patches: Int32Array}} Sheet
 * @typedef {{mpp: number, footprint: number, count: number, coords: Int32Array, rank: Int32Array, sheets: Sheet[],
 *   packed: string[], decoded: Float32Array[]}} Scale
 * @typedef {{scales: Scale[], layers: Layer[], highest: Object[], lowest: Object[]}} SlideMap
 * @typedef {{kind: string, unit: string, low: number, high: number, below: boolean, above: boolean}} Range
 *   low and high have the end colours; below and above tell whether there are values beyond them.
 */
const Layers = (() => {
  const RANK = { name: "rank", unit: "", kind: "rank", factor: 1 };
  const TAIL = 0.01;  // fraction of the values at each end that do not stretch the colours

  /** Return the map of a document with its numbers decoded; layers are decoded when they are first shown. */
  function decode(map) {
    if (!map) return null;
    const scales = map.scales.map((scale) => ({
      mpp: scale.mpp, footprint: scale.footprint, count: scale.count,
      coords: Numbers.int32(scale.coords), rank: Numbers.int32(scale.rank),
      sheets: scale.sheets.map((sheet) => ({ ...sheet, patches: Numbers.int32(sheet.patches) })),
      packed: scale.layers, decoded: [],
    }));
    return { scales, layers: [...map.layers, RANK], highest: map.highest || [], lowest: map.lowest || [] };
  }

  /** Return the layer of a map that has the name, or null. */
  function find(map, name) {
    return (map && map.layers.find((layer) => layer.name === name)) || null;
  }

  /** Return the indices of the scales that have patches. */
  function filled(map) {
    return map.scales.map((_, index) => index).filter((index) => map.scales[index].count > 0);
  }

  /** Return the index of the scale that is shown: the wanted one or, where that has no patches, the first that has some. */
  function scaleIndex(map, wanted) {
    const indices = filled(map);
    return indices.includes(wanted) ? wanted : indices[0] ?? 0;
  }

  /** Return the scale of a map that has these µm/px; where it has no patches of them, the first that has some. */
  function scaleOf(map, mpp) {
    const indices = filled(map);
    const index = indices.find((other) => Math.abs(map.scales[other].mpp / mpp - 1) < 0.01);
    return map.scales[index ?? indices[0] ?? 0];
  }

  /** Return the value of each patch of a scale, shape (N,). */
  function values(map, scale, layer) {
    if (layer.kind === "rank") return scale.rank;
    const index = map.layers.indexOf(layer);
    if (!scale.decoded[index]) scale.decoded[index] = Numbers.float16(scale.packed[index], layer.factor);
    return scale.decoded[index];
  }

  /** Return all finite values that maps have in the layer of a name, sorted. */
  function sortedValues(maps, name, of) {
    const parts = [];
    for (const map of maps) {
      const layer = find(map, name);
      if (layer) parts.push(...map.scales.map((scale) => values(map, scale, layer)));
    }
    const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let count = 0;
    for (const part of parts) for (const value of part) if (Number.isFinite(value)) all[count++] = of(value);
    return all.subarray(0, count).sort();
  }

  /**
   * Return the range of the colours of a layer over the maps of a case: the 1st to the 99th percentile of the values, for
   * contributions the 99th of their magnitude on both sides of 0, for ranks 1 to the number of patches.
   * @returns {Range}
   */
  function range(maps, name) {
    const { kind, unit } = maps.map((map) => find(map, name)).find(Boolean);
    const sorted = sortedValues(maps, name, kind === "diverging" ? Math.abs : (value) => value);
    const [least, most] = sorted.length ? [sorted[0], sorted[sorted.length - 1]] : [0, 0];
    if (kind === "rank") return { kind, unit, low: 1, high: Math.max(1, most), below: false, above: false };
    let [low, high] = sorted.length ? Numbers.percentiles(sorted, [TAIL, 1 - TAIL]) : [0, 0];
    if (kind === "diverging") {
      high = high || most || 1;
      return { kind, unit, low: -high, high, below: most > high, above: most > high };
    }
    if (low === high) [low, high] = [least, most];
    return { kind, unit, low, high, below: least < low, above: most > high };
  }

  /** Return where a value lies between the ends of the colours, from 0 to 1; rank 1 lies at 1. */
  function position(value, { kind, low, high }) {
    const at = high > low ? (value - low) / (high - low) : 1;
    return Math.min(1, Math.max(0, kind === "rank" && high > low ? 1 - at : at));
  }

  /** Tell whether a threshold leaves a value visible. */
  function passes(value, threshold, kind) {
    if (!Number.isFinite(value)) return false;
    if (threshold === null) return true;
    if (kind === "rank") return value <= threshold;
    return (kind === "diverging" ? Math.abs(value) : value) >= threshold;
  }

  /** Return a value with its unit, as people read it. */
  function text(value, layer, digits = Numbers.short) {
    if (layer.kind === "rank") return `rank ${Numbers.grouped(value)}`;
    return [digits(value), layer.unit].filter(Boolean).join(" ");
  }

  return { decode, find, filled, scaleIndex, scaleOf, values, range, position, passes, text };
})();
