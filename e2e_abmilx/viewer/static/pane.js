"use strict";
/**
 * Pane: one slide with its overlay in a viewer of its own.
 * @typedef {{x: number, y: number, zoom: number}} View centre in level-0 pixels, and CSS pixels per level-0 pixel
 */
class Pane {
  /** @param {Element} host @param {string} run name of the run, shown where two are compared, or "" */
  constructor(host, run) {
    const figure = host.appendChild(document.createElement("div"));
    figure.className = "pane";
    if (run) figure.appendChild(document.createElement("p")).textContent = run;
    const stage = figure.appendChild(document.createElement("div"));
    stage.className = "stage";
    this.stage = stage;
    this.viewer = Pane.makeViewer(stage, run);
    const mark = stage.appendChild(document.createElement("div"));
    mark.className = "mark";
    this.overlay = new Overlay(this.viewer, mark);
    const foot = figure.appendChild(document.createElement("div"));
    foot.className = "foot";
    this.furniture = new Furniture(stage, foot, this);
    this.absent = foot.appendChild(document.createElement("p"));
    this.slide = null;
    this.total = 0;
    this.wanted = null;  // the view to show when the slide has opened
    this.viewer.addHandler("open", () => this.opened());
    for (const event of ["update-viewport", "resize"]) this.viewer.addHandler(event, () => this.furniture.update());
  }

  /** Return a viewer without pictures of its own for buttons, and without its keys: keys.js has the keys. */
  static makeViewer(stage, run) {
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const viewer = OpenSeadragon({
      element: stage, drawer: "canvas", showNavigationControl: false, keyboardNavEnabled: false,
      animationTime: still ? 0 : 0.5, visibilityRatio: 0.1, minZoomImageRatio: 0.5, maxZoomPixelRatio: 10,
      preserveImageSizeOnResize: true, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    viewer.canvas.setAttribute("role", "application");
    viewer.canvas.setAttribute("aria-label", `Slide${run ? ` of ${run}` : ""}: arrow keys move, plus and minus zoom`);
    return viewer;
  }

  /** Open a slide of a case; the view is shown at once, or the whole slide without one. */
  open(slide, view) {
    this.slide = slide;
    this.wanted = view;
    this.overlay.clear(slide.width);
    this.viewer.open(Pane.tileSource(slide));
  }

  /** Close the slide. */
  close() {
    this.slide = this.wanted = null;
    this.viewer.close();
    this.overlay.clear(1);
    this.overlay.draw();
    this.furniture.clear();
  }

  /** Return OpenSeadragon's description of a slide's picture. */
  static tileSource({ width, height, picture }) {
    if (picture.kind === "image") {
      return { width, height, tileWidth: width, tileHeight: height, minLevel: 0, maxLevel: 0, getTileUrl: () => picture.url };
    }
    const fill = (level, x, y) => picture.url.replace("{level}", level).replace("{x}", x).replace("{y}", y);
    return { width, height, tileSize: picture.tile_size, tileOverlap: 0, minLevel: 0, maxLevel: picture.levels - 1, getTileUrl: fill };
  }

  /** Show the wanted view of the slide that has opened. */
  opened() {
    if (this.wanted) this.setView(this.wanted, true);
    this.wanted = null;
    this.overlay.draw();
    this.furniture.update();
  }

  /** Show a layer of a map of the case's total patches, of those with these µm/px, or a sentence that says why there is none. */
  show(map, layer, range, { total, mpp }) {
    this.total = total;
    this.overlay.show(map, layer, range, mpp);
    this.absent.textContent = this.absence(map, layer, mpp);
    this.furniture.update();
  }

  /** Return what of the choice is not shown, as a sentence. */
  absence(map, layer, mpp) {
    if (!map) return "This run has no map of this slide.";
    if (!layer) return `This run has no layer “${Settings.values.layer}”.`;
    const [chosen, shown] = [mpp, this.overlay.scale.mpp].map(Numbers.resolution);
    return chosen === shown ? "" : `This run has no patches of ${chosen} here: these are of ${shown}.`;
  }

  /** Return whether a slide is open. */
  get ready() {
    return Boolean(this.slide && this.viewer.viewport && this.viewer.world.getItemCount());
  }

  /** Return what the viewport shows, or will show when its animation has ended. */
  view(current = true) {
    if (!this.ready) return this.wanted || { x: 0, y: 0, zoom: 1 };
    const { viewport } = this.viewer;
    const centre = viewport.getCenter(current);
    const zoom = (viewport.getZoom(current) * viewport.getContainerSize().x) / this.slide.width;
    return { x: centre.x * this.slide.width, y: centre.y * this.slide.width, zoom };
  }

  /** Move to a view. */
  setView({ x, y, zoom }, immediately = false) {
    if (!this.ready) return;
    const { viewport } = this.viewer;
    const width = this.slide.width;
    const target = (zoom * width) / viewport.getContainerSize().x;
    viewport.zoomTo(Math.min(viewport.getMaxZoom(), Math.max(viewport.getMinZoom(), target)), null, immediately);
    viewport.panTo(new OpenSeadragon.Point(x / width, y / width), immediately);
    const inside = x >= 0 && x <= width && y >= 0 && y <= this.slide.height;
    if (!inside) viewport.applyConstraints(immediately);  // an address may name a place far outside the slide
  }

  /** Fly to a patch, so that its centre is the centre of the view, and mark it. */
  fly(bounds) {
    if (!this.ready) return;
    const { x: width, y: height } = this.viewer.viewport.getContainerSize();
    const zoom = Math.min(width, height) / (7 * bounds.side);
    this.overlay.markPatch(bounds);
    this.setView({ x: bounds.x + bounds.side / 2, y: bounds.y + bounds.side / 2, zoom });
  }

  /** Zoom about the centre. */
  zoomBy(factor) {
    const view = this.view(false);
    this.setView({ ...view, zoom: view.zoom * factor });
  }

  /** Move by fractions of what is visible. */
  panBy(x, y) {
    const bounds = this.viewer.viewport.getBounds(false);
    this.viewer.viewport.panBy(new OpenSeadragon.Point(x * bounds.width, y * bounds.height));
    this.viewer.viewport.applyConstraints();
  }

  /** Show the whole slide. */
  home() {
    this.viewer.viewport.goHome();
  }
}
