"use strict";
/**
 * Overlay: the raster of a layer on a canvas above the slide. Each sheet is a small picture with one pixel per cell; it is
 * drawn without smoothing at its level-0 bounds whenever the viewport changes.
 */
class Overlay {
  /** @param {OpenSeadragon.Viewer} viewer @param {Element} mark an element that is laid around the marked patch */
  constructor(viewer, mark) {
    this.viewer = viewer;
    this.mark = mark;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "overlay";
    viewer.canvas.append(this.canvas);
    this.hidden = false;
    this.clear(1);
    for (const event of ["update-viewport", "open", "resize"]) viewer.addHandler(event, () => this.draw());
  }

  /** Forget the map; the slide has the given width in level-0 pixels. */
  clear(width) {
    this.width = width;
    Object.assign(this, { map: null, scale: null, layer: null, values: null, range: null, rasters: [], marked: null });
  }

  /** Show a layer of a map, of the patches with these µm/px. The colours and the visible patches follow the settings. */
  show(map, layer, range, mpp) {
    this.map = map;
    this.layer = layer;
    this.range = range;
    this.scale = map && layer ? Layers.scaleOf(map, mpp) : null;
    this.values = this.scale ? Layers.values(map, this.scale, layer) : null;
    this.paint();
  }

  /** Colour the patches anew. */
  paint() {
    this.rasters = this.scale ? this.scale.sheets.map((sheet) => this.raster(sheet)) : [];
    this.draw();
  }

  /** Return the colour of a patch, red, green and blue, or null where the threshold hides it. */
  colour(patch) {
    const value = this.values[patch];
    if (!Layers.passes(value, Settings.values.threshold, this.layer.kind)) return null;
    const table = Colours.table(this.layer.kind === "diverging" ? Colours.diverging : Settings.values.colours);
    const at = 3 * Math.round(255 * Layers.position(value, this.range));
    return table.subarray(at, at + 3);
  }

  /** Return a sheet's picture: one pixel per cell, transparent where no patch is visible; of a single cell its colour. */
  raster(sheet) {
    if (sheet.patches.length === 1) {  // scattered patches have a sheet each: thousands of canvases would be slow
      const colour = this.colour(sheet.patches[0]);
      return { sheet, fill: colour ? `rgb(${colour.join(" ")})` : null };
    }
    const canvas = document.createElement("canvas");
    canvas.width = sheet.columns;
    canvas.height = sheet.rows;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(sheet.columns, sheet.rows);
    for (let cell = 0; cell < sheet.patches.length; cell++) {
      const colour = sheet.patches[cell] < 0 ? null : this.colour(sheet.patches[cell]);
      if (!colour) continue;
      pixels.data.set(colour, 4 * cell);
      pixels.data[4 * cell + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
    return { sheet, canvas };
  }

  /** Return the viewport's affine transform: CSS pixels per level-0 pixel, and where level-0 (0, 0) lies. */
  transform() {
    const { viewport } = this.viewer;
    const origin = viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    return { scale: (viewport.getZoom(true) * viewport.getContainerSize().x) / this.width, x: origin.x, y: origin.y };
  }

  /** Draw the rasters and lay the mark where the viewport shows them now. */
  draw() {
    const { canvas } = this;
    if (!this.viewer.viewport || !this.viewer.world.getItemCount()) {
      canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
      this.mark.hidden = true;
      return;
    }
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.viewer.canvas.clientWidth, this.viewer.canvas.clientHeight].map((side) => Math.round(side * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.style.width = `${width / ratio}px`;  // exactly one pixel of the screen per pixel, also where the pane's width is fractional
    canvas.style.height = `${height / ratio}px`;
    const transform = this.transform();
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    this.layMark(transform);
    const { opacity, curtain, shown } = Settings.values;
    canvas.style.opacity = opacity;  // of the whole canvas: sheets on top of each other do not add up
    if (!shown || this.hidden) return;
    context.imageSmoothingEnabled = false;
    for (const raster of this.rasters) this.drawRaster(context, raster, transform, ratio);
    context.clearRect(0, 0, Math.round(curtain * width), height);
  }

  /** Draw the cells of a raster that the viewport shows; without the others no coordinate is too large for the canvas. */
  drawRaster(context, { sheet, canvas, fill }, transform, ratio) {
    const cell = sheet.pitch * transform.scale * ratio;
    const left = (transform.x + sheet.x * transform.scale) * ratio;
    const top = (transform.y + sheet.y * transform.scale) * ratio;
    const [c0, r0] = [left, top].map((start) => Math.max(0, Math.floor(-start / cell)));
    const c1 = Math.min(sheet.columns, Math.ceil((context.canvas.width - left) / cell));
    const r1 = Math.min(sheet.rows, Math.ceil((context.canvas.height - top) / cell));
    if (c1 <= c0 || r1 <= r0) return;
    const [columns, rows] = [c1 - c0, r1 - r0];
    const place = [left + c0 * cell, top + r0 * cell, columns * cell, rows * cell];
    if (canvas) context.drawImage(canvas, c0, r0, columns, rows, ...place);
    else if (fill) {
      context.fillStyle = fill;
      context.fillRect(...place);
    }
  }

  /** Mark a patch of a scale by its bounds in level-0 pixels; null takes the mark away. */
  markPatch(bounds) {
    this.marked = bounds;
    this.draw();
  }

  /** Lay the mark around the marked patch. */
  layMark({ scale, x, y }) {
    this.mark.hidden = !this.marked;
    if (!this.marked) return;
    const { style } = this.mark;
    style.transform = `translate(${x + this.marked.x * scale}px, ${y + this.marked.y * scale}px)`;
    style.width = style.height = `${this.marked.side * scale}px`;
  }

  /** Return the patch at a level-0 point, the topmost visible one first: {patch, value, rank}, or null. */
  at(x, y) {
    let found = null;
    const sheets = this.scale ? this.scale.sheets : [];
    for (let number = sheets.length - 1; number >= 0; number--) {
      const sheet = sheets[number];
      const column = Math.floor((x - sheet.x) / sheet.pitch);
      const row = Math.floor((y - sheet.y) / sheet.pitch);
      if (column < 0 || row < 0 || column >= sheet.columns || row >= sheet.rows) continue;
      const patch = sheet.patches[row * sheet.columns + column];
      if (patch < 0) continue;
      const hit = { patch, value: this.values[patch], rank: this.scale.rank[patch] };
      if (Layers.passes(hit.value, Settings.values.threshold, this.layer.kind)) return hit;
      found = found || hit;
    }
    return found;
  }
}
