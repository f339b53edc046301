"use strict";
/** App: which case and slide are shown; it connects the parts of the page. */
const App = (() => {
  const field = (id) => document.getElementById(id);
  const state = { run: null, id: null, doc: null, slide: 0, maps: [], turn: 0 };  // maps[slide][run], decoded or null

  /** Show a sentence about what went wrong, or none. */
  function tell(problem) {
    field("problem").textContent = problem;
    field("problem").hidden = !problem;
  }

  /** Open a case, if there is one with the id; its slide and view are those wanted or the first, whole. */
  async function openCase(id, slide = 0, view = null) {
    if (!state.run.cases.some((row) => row.id === id)) return;
    state.id = id;
    state.turn += 1;
    const turn = state.turn;
    CaseList.select(id);
    field("slide-facts").textContent = "loading …";
    try {
      const doc = await Documents.ofCase(id);
      if (turn !== state.turn) return;  // another case has been chosen in the meantime
      tell("");
      state.doc = doc;
      state.maps = doc.slides.map(({ maps }) => state.run.runs.map((_, run) => Layers.decode(maps[run])));
      showCase();
      openSlide(doc.slides[slide] ? slide : 0, doc.slides[slide] ? view : null);
    } catch (error) {
      if (turn !== state.turn) return;
      tell(`The case cannot be shown: ${error.message}.`);
      field("slide-facts").textContent = "";
    }
  }

  /** Show what belongs to the case as a whole. */
  function showCase() {
    const { doc } = state;
    field("case-name").textContent = doc.name;
    document.title = `${doc.name} · ${state.run.title}`;
    field("slide").replaceChildren(...doc.slides.map(({ name }, index) => new Option(name, index)));
    field("slide-label").hidden = doc.slides.length < 2;
    CaseFacts.show(doc);
    Reviews.show(doc);
  }

  /** Open a slide of the case. */
  function openSlide(index, view = null) {
    state.slide = index;
    field("slide").value = index;
    const slide = state.doc.slides[index];
    const notes = [state.doc.note, slide && slide.note].filter(Boolean).join(" ");
    field("note").textContent = notes;
    field("note").hidden = !notes;
    if (!slide) return closeSlide();
    const size = `${Numbers.grouped(slide.width)} × ${Numbers.grouped(slide.height)} px`;
    field("slide-facts").textContent = [state.doc.slides.length < 2 ? slide.name : "", size, slide.mpp ? Numbers.resolution(slide.mpp) : ""].filter(Boolean).join(" · ");
    Panes.open(slide, view);
    const run = state.maps[index].findIndex(Boolean);
    Strip.show(state.maps[index][run] || null, state.run.runs.length > 1 ? state.run.runs[run] ?? "" : "", flyTo);
    showLayer();
  }

  /** Show that the case has no slide. */
  function closeSlide() {
    field("slide-facts").textContent = "no slide";
    Panes.list.forEach((pane) => pane.close());
    Strip.show(null, "");
    Controls.offer([], null, null);
  }

  /** Fly to a patch and show its scale; after a click with the pointer the keyboard belongs to the slide. */
  function flyTo({ button, scale, bounds }, byPointer) {
    Settings.change({ scale });
    document.querySelectorAll(".patch[aria-current]").forEach((other) => other.removeAttribute("aria-current"));
    button.setAttribute("aria-current", "true");
    Panes.fly(bounds);
    Panes.list[0].stage.scrollIntoView({ block: "nearest" });  // where the page is narrow, the strips are below it
    if (byPointer) Panes.focus();
  }

  /** Choose the layer: the one of the settings or, where no map has it, the first of its kind, or the first. */
  function chooseLayer(maps) {
    const { layer: name } = Settings.values;
    const layers = maps.flatMap((map) => map.layers);
    const kind = name && name.startsWith("contribution") ? "diverging" : "sequential";
    const layer = layers.find((other) => other.name === name) || layers.find((other) => other.kind === kind) || layers[0];
    if (layer && layer.name !== name) Settings.change({ layer: layer.name, threshold: name ? null : Settings.values.threshold });
    return layer || null;
  }

  /** Show the layer of the settings in all panes. */
  function showLayer() {
    const maps = state.maps[state.slide].filter(Boolean);
    const layer = chooseLayer(maps);
    const all = state.maps.flat().filter(Boolean);
    const range = layer ? Layers.range(all, layer.name) : null;
    const mpp = maps.length ? maps[0].scales[Layers.scaleIndex(maps[0], Settings.values.scale)].mpp : null;
    Panes.list.forEach((pane, run) => {
      const map = state.maps[state.slide][run];
      const total = state.maps.flatMap((slide) => (slide[run] ? slide[run].scales : [])).reduce((sum, { count }) => sum + count, 0);
      pane.show(map, layer && Layers.find(map, layer.name), range, { total, mpp });
    });
    Controls.offer(maps, layer, range);
  }

  /** Draw again what a change of the settings changes. */
  function redraw(changed) {
    if (!state.doc || !state.doc.slides.length) return;  // nothing is drawn
    if (changed.includes("layer") || changed.includes("scale")) showLayer();
    for (const pane of Panes.list) {
      if (changed.includes("threshold") || changed.includes("colours")) pane.overlay.paint();
      else pane.overlay.draw();
      pane.furniture.update();
    }
    remember();
  }

  /** Write the state into the address. */
  function remember() {
    const pane = Panes.list[0];
    Hash.write(() => (state.doc && pane.ready ? Hash.spell(state.id, state.slide, pane.view(), Settings.values) : null));
  }

  /** Show what the address says. */
  function follow() {
    const said = Hash.read();
    Settings.change(said.settings);
    const id = state.run.cases.some((row) => row.id === said.case) ? said.case : state.id ?? state.run.cases[0]?.id;
    if (state.doc?.id !== id || id !== state.id) openCase(id, said.slide ?? 0, said.case === id ? said.view : null);
    else if (state.doc.slides[said.slide] && said.slide !== state.slide) openSlide(said.slide, said.view);
    else if (said.view) Panes.list[0].setView(said.view, true);
  }

  /** Go to the next (1) or previous (-1) case. */
  function step(by) {
    const id = CaseList.step(state.id, by);
    if (id !== state.id) openCase(id);
  }

  /** Return what a review says beside its verdict and note; null while the chosen case is not the one that is shown. */
  function place() {
    if (!state.doc || state.doc.id !== state.id) return null;
    const slide = state.doc.slides[state.slide];
    const { x, y } = Panes.list[0].view();
    const known = slide && slide.mpp && Panes.list[0].ready;
    return { case: state.id, slide: slide ? state.slide : null, x_um: known ? x * slide.mpp : null, y_um: known ? y * slide.mpp : null };
  }

  /** Load the run and show its first case, or the one that the address names. */
  async function start() {
    try {
      state.run = await Documents.run();
    } catch (error) {
      tell(`The run cannot be shown: ${error.message}.`);
      return;
    }
    field("title").textContent = state.run.title;
    field("run-note").textContent = state.run.note || "";
    document.title = state.run.title;
    Controls.listen();
    Settings.listen(redraw);
    Panes.make(field("panes"), state.run.runs, remember);
    CaseList.build(state.run, (id, byPointer) => { openCase(id); if (byPointer) Panes.focus(); });
    Reviews.build(state.run, place);
    Keys.listen(state.run, step);
    field("slide").addEventListener("change", () => openSlide(Number(field("slide").value)));
    field("previous").addEventListener("click", () => step(-1));
    field("next").addEventListener("click", () => step(1));
    window.addEventListener("hashchange", follow);
    if (state.run.cases.length) follow();
    else tell("The run has no tested case.");
  }

  start();
  return { state };
})();
