"use strict";
/** CaseList: the cases of the run, the most wrong first, with a filter. */
const CaseList = (() => {
  const field = (id) => document.getElementById(id);
  const items = new Map();  // case id → {item, button, verdict, text}
  let order = [];
  let all = "";            // a sentence about all cases

  /** Return an element with a class and a text. */
  function element(tag, name, text = "") {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    return made;
  }

  /** Build the list; choose(id, byPointer) is called when a case is chosen. */
  function build(run, choose) {
    order = run.cases.map((row) => row.id);
    all = summary(run);
    field("case-list").dataset.task = run.task;
    field("case-list").replaceChildren(...run.cases.map((row) => makeItem(row, choose)));
    field("filter").addEventListener("input", filter);
    field("cases-toggle").addEventListener("click", () => expand(!field("cases").classList.contains("open")));
    filter();
  }

  /** Return how many cases there are, and their order where some can be judged. */
  function summary({ cases }) {
    const judged = cases.filter((row) => typeof row.correctness === "number").length;
    const number = `${Numbers.grouped(cases.length)} case${cases.length === 1 ? "" : "s"}`;
    if (!judged) return number;
    return `${number}, most wrong first${judged < cases.length ? `; ${cases.length - judged} cannot be judged` : ""}`;
  }

  /** Return the item of a case. */
  function makeItem(row, choose) {
    const item = document.createElement("li");
    const button = element("button", "case");
    button.type = "button";
    const picture = element("img", "thumbnail");
    Object.assign(picture, { alt: "", loading: "lazy", src: row.thumbnail || "data:," });
    picture.addEventListener("error", () => { picture.style.visibility = "hidden"; });
    const verdict = element("span", "verdict");
    const lines = element("span", "lines");
    const first = element("span", "first");
    first.append(element("b", "name", row.name), verdict);
    lines.append(first, element("span", "label", row.label), element("span", "prediction", row.prediction), meter(row.correctness));
    button.append(picture, lines);
    button.title = row.name;
    button.addEventListener("click", (event) => choose(row.id, event.detail > 0));
    item.append(button);
    items.set(row.id, { item, button, verdict, row });
    showVerdict(row.id, row.verdict);
    return item;
  }

  /** Return a bar as long as the prediction is correct; the text beside it says the same, so readers of the screen skip it. */
  function meter(correctness) {
    const bar = element("span", "correctness");
    bar.setAttribute("aria-hidden", "true");
    bar.hidden = typeof correctness !== "number";
    bar.appendChild(document.createElement("i")).style.width = `${100 * Math.min(1, Math.max(0, correctness || 0))}%`;
    return bar;
  }

  /** Show the last verdict on a case; a note leaves an earlier verdict as it is. */
  function showVerdict(id, verdict) {
    const { verdict: badge, row } = items.get(id);
    if (verdict !== "note" || !row.verdict) row.verdict = verdict;
    badge.textContent = row.verdict || "";
    badge.hidden = !row.verdict;
    badge.dataset.verdict = row.verdict || "";
  }

  /** Show the cases whose name, label, prediction or verdict have all words of the filter. */
  function filter() {
    const words = field("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { item, row } of items.values()) {
      const text = [row.name, row.label, row.prediction, row.verdict || ""].join(" ").toLowerCase();
      item.hidden = !words.every((word) => text.includes(word));
      count += item.hidden ? 0 : 1;
    }
    field("cases-count").textContent = count === order.length ? all : `${Numbers.grouped(count)} of ${Numbers.grouped(order.length)} cases`;
  }

  /** Mark the case that is shown. */
  function select(id) {
    for (const [other, { button }] of items) button.toggleAttribute("aria-current", other === id);
    items.get(id).button.setAttribute("aria-current", "true");
    items.get(id).button.scrollIntoView({ block: "nearest" });
    expand(false);
  }

  /** Open or close the list where the page is narrow. */
  function expand(open) {
    field("cases").classList.toggle("open", open);
    field("cases-toggle").setAttribute("aria-expanded", String(open));
  }

  /** Return the case that comes after (1) or before (-1) another among those that the filter shows; itself at the ends. */
  function step(id, by) {
    const shown = order.filter((other) => other === id || !items.get(other).item.hidden);
    return shown[shown.indexOf(id) + by] ?? id;
  }

  return { build, select, step, showVerdict };
})();
