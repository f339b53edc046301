"use strict";
/** CaseFacts: what is known of the case, and its predicted survival curve. */
const CaseFacts = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const BOX = { width: 260, height: 130, left: 30, right: 8, top: 8, bottom: 28 };

  /** Show the facts and the curve of a case. */
  function show(doc) {
    const rows = doc.facts.map(([name, value]) => {
      const row = document.createElement("div");
      row.appendChild(document.createElement("dt")).textContent = name;
      row.appendChild(document.createElement("dd")).textContent = value;
      return row;
    });
    document.getElementById("facts").replaceChildren(...rows);
    document.getElementById("survival").replaceChildren(...(doc.survival ? [figure(doc.survival)] : []));
  }

  /** Return an SVG element with attributes and a text. */
  function draw(tag, attributes, text) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  /** Return a sentence about the time of the case. */
  function sentence({ time, event }) {
    if (typeof time !== "number") return "";
    return `${event === 1 ? "event" : event === 0 ? "censored" : "last seen"} at ${Number(time.toPrecision(4))} months`;
  }

  /** Return the curve with its sentence. */
  function figure(survival) {
    const made = document.createElement("figure");
    made.className = "survival";
    made.append(curve(survival));
    const caption = document.createElement("figcaption");
    caption.className = "faint";
    caption.textContent = ["Predicted survival", sentence(survival)].filter(Boolean).join("; ");
    made.append(caption);
    return made;
  }

  /** Return months from 0 to at most the end, about five, in steps that people use. */
  function ticks(end) {
    const step = [1, 2, 3, 6, 12, 24, 36, 60].find((size) => size >= end / 5) ?? 120 * Math.ceil(end / 600);
    return Array.from({ length: Math.floor(end / step) + 1 }, (_, i) => i * step);
  }

  /** Return the curve: probability over months, falling in steps, with the time of the case. */
  function curve(survival) {
    const { months, probability, time, event } = survival;
    const end = Math.max(...months, typeof time === "number" ? time : 0, 1);
    const x = (month) => BOX.left + (month / end) * (BOX.width - BOX.left - BOX.right);
    const y = (fraction) => BOX.top + (1 - fraction) * (BOX.height - BOX.top - BOX.bottom);
    const svg = draw("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", "aria-label": `Predicted survival curve; ${sentence(survival)}` });
    for (const fraction of [0, 0.5, 1]) {
      svg.append(draw("line", { class: "grid", x1: BOX.left, x2: BOX.width - BOX.right, y1: y(fraction), y2: y(fraction) }));
      svg.append(draw("text", { x: BOX.left - 5, y: y(fraction) + 4, "text-anchor": "end" }, String(fraction)));
    }
    for (const month of ticks(end)) svg.append(draw("text", { x: x(month), y: BOX.height - 14, "text-anchor": "middle" }, String(month)));
    svg.append(draw("text", { x: (BOX.left + BOX.width) / 2, y: BOX.height - 2, "text-anchor": "middle" }, "months"));
    const steps = months.map((month, i) => `H${x(month)}V${y(probability[i])}`).join("");
    svg.append(draw("path", { class: "curve", d: `M${x(0)} ${y(1)}${steps}H${x(end)}` }));
    if (typeof time === "number") {
      const last = months.reduce((at, month, i) => (month <= time ? probability[i] : at), 1);
      svg.append(draw("line", { class: "time", x1: x(time), x2: x(time), y1: y(0), y2: y(1) }));
      svg.append(draw("circle", { class: event === 1 ? "event" : "censored", cx: x(time), cy: y(last), r: 4 }));
    }
    return svg;
  }

  return { show };
})();
