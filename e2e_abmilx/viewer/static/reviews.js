"use strict";
/** Reviews: verdicts and notes on the case, saved by the server at once. */
const Reviews = (() => {
  const field = (id) => document.getElementById(id);
  const KEYS = { agree: "a", disagree: "d", artefact: "f", note: "n" };
  let offered = [];
  const drafts = new Map();  // case id → the text of a note that is not saved
  let shown = null;        // id of the case whose reviews are shown
  let where = () => null;  // the body of a review without verdict and note, or null while a case is loading

  /** Offer the verdicts of the run; place() returns what else a review says (case, slide, x_um, y_um), or null. */
  function build(run, place) {
    if (run.read_only) return;
    where = place;
    offered = run.verdicts;
    field("review").hidden = false;
    for (const verdict of offered.filter((name) => name !== "note")) {
      const button = field("verdicts").appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = verdict;
      if (KEYS[verdict]) button.title = `${verdict} (${KEYS[verdict]})`;
      button.addEventListener("click", () => save(verdict));
    }
    field("note-save").addEventListener("click", saveNote);
    field("note-text").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) saveNote();
      if (event.key === "Escape") Panes.focus();
    });
  }

  /** Save the note without another verdict. */
  function saveNote() {
    if (field("note-text").value.trim()) save("note");
    else field("note-text").focus();
  }

  /** Save a verdict with the text of the note; the text stays where it cannot be saved. */
  async function save(verdict) {
    if (!offered.includes(verdict)) return;
    const place = where();
    if (!place) return tell("Not saved: the case is not shown yet.", "");
    const note = field("note-text").value;
    const body = { ...place, verdict, note };
    tell("", "");
    try {
      const saved = await Documents.review(body);
      CaseList.showVerdict(body.case, verdict);
      if (drafts.get(body.case) === note) drafts.delete(body.case);
      if (shown !== body.case) return;  // another case has been opened in the meantime
      add(saved);
      if (field("note-text").value === note) field("note-text").value = "";
      tell("", `Saved: ${verdict}.`);
    } catch (error) {
      tell(`Not saved: ${error.message}. The text of the note is kept here; try again.`, "");
    }
  }

  /** Show what went wrong and what was saved. */
  function tell(problem, saved) {
    field("review-problem").textContent = problem;
    field("review-problem").hidden = !problem;
    field("review-saved").textContent = saved;
  }

  /** Show the reviews of a case, the newest first, and the note that was begun for it: notes never go to another case. */
  function show({ id, reviews }) {
    if (shown !== null) drafts.set(shown, field("note-text").value);
    shown = id;
    field("note-text").value = drafts.get(id) || "";
    tell("", "");
    field("reviews").replaceChildren();
    reviews.forEach(add);
  }

  /** Show one more review. */
  function add({ verdict, note, time }) {
    const item = document.createElement("li");
    item.appendChild(document.createElement("b")).textContent = verdict;
    if (note) item.appendChild(document.createElement("span")).textContent = note;
    if (time) item.appendChild(document.createElement("time")).textContent = String(time).slice(0, 16).replace("T", " ");
    field("reviews").prepend(item);
  }

  /** Do what a verdict's key does: save it or, for a note, go to its field. */
  function press(verdict) {
    if (verdict === "note" && offered.includes("note")) field("note-text").focus();
    else save(verdict);
  }

  return { build, show, press };
})();
