"use strict";
/** Numbers: decode the arrays of the documents, summarise them and write them for people. */
const Numbers = (() => {
  let halves = null;

  /** Return the value of every float16, by its bits; not every browser has Float16Array. */
  function tableOfHalves() {
    if (halves) return halves;
    halves = new Float32Array(65536);
    for (let bits = 0; bits < 65536; bits++) {
      const sign = bits & 0x8000 ? -1 : 1;
      const exponent = (bits >> 10) & 31;
      const fraction = bits & 1023;
      let value;
      if (exponent === 0) value = fraction * 2 ** -24;
      else if (exponent === 31) value = fraction ? NaN : Infinity;
      else value = (1 + fraction / 1024) * 2 ** (exponent - 15);
      halves[bits] = sign * value;
    }
    return halves;
  }

  /** Return the bytes of a base64 string. */
  function bytes(text) {
    const characters = atob(text);
    const result = new Uint8Array(characters.length);
    for (let i = 0; i < characters.length; i++) result[i] = characters.charCodeAt(i);
    return result;
  }

  /** Return the little-endian int32 numbers of a base64 string. */
  function int32(text) {
    return new Int32Array(bytes(text).buffer);
  }

  /** Return the little-endian float16 numbers of a base64 string, times a factor. */
  function float16(text, factor) {
    const table = tableOfHalves();
    const bits = new Uint16Array(bytes(text).buffer);
    const values = new Float32Array(bits.length);
    for (let i = 0; i < bits.length; i++) values[i] = table[bits[i]] * factor;
    return values;
  }

  /** Return the percentiles (fractions) of sorted numbers, by the nearest rank. */
  function percentiles(sorted, fractions) {
    return fractions.map((fraction) => sorted[Math.round(fraction * (sorted.length - 1))]);
  }

  /** Return a number with about three significant digits and thin separators. */
  function short(value) {
    if (!Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && size < 0.001) return value.toExponential(1).replaceAll("-", "−");
    const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
    return grouped(value + 0, digits);  // + 0: no minus before zero
  }

  /** Return a number with a fixed number of decimals and a separator of thousands. */
  function grouped(value, digits = 0) {
    return value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
  }

  /** Return a resolution with at most four digits: headers of slides state more than anybody can measure. */
  function resolution(mpp) {
    return `${Number(mpp.toPrecision(4))} µm/px`;
  }

  /** Return a number as a percentage. */
  function percent(fraction) {
    return `${Math.round(100 * fraction)} %`;
  }

  return { int32, float16, percentiles, short, grouped, resolution, percent };
})();
