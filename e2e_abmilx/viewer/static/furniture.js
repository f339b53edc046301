"use strict";
/** Furniture: what lies on and below the slide of a pane: zoom buttons, scale bar, curtain and the value under the pointer. */
class Furniture {
  /** @param {Element} stage holds the slide @param {Element} foot the line below it @param {Pane} pane */
  constructor(stage, foot, pane) {
    this.pane = pane;
    this.stage = stage;
    this.pointer = null;  // level-0 point under the pointer
    stage.append(this.buttons(), this.scaleBar());
    this.readout = foot.appendChild(document.createElement("p"));
    this.readout.className = "readout";
    this.curtain = this.curtainHandle();
    stage.append(this.curtain);
    stage.addEventListener("pointermove", (event) => this.point(event));
    stage.addEventListener("pointerleave", () => { this.pointer = null; this.read(); });
  }

  /** Return the buttons that zoom. */
  buttons() {
    const group = document.createElement("div");
    group.className = "zoom furniture";
    const actions = [["+", "Zoom in (+)", () => this.pane.zoomBy(1.5)], ["−", "Zoom out (−)", () => this.pane.zoomBy(1 / 1.5)],
      ["⤢", "Whole slide (0)", () => this.pane.home()]];
    for (const [sign, name, action] of actions) {
      const button = group.appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = sign;
      button.title = name;
      button.setAttribute("aria-label", name.replace(/ \(.*/, ""));
      button.addEventListener("click", action);
    }
    return group;
  }

  /** Return the scale bar. */
  scaleBar() {
    this.bar = document.createElement("div");
    this.bar.className = "scale-bar furniture";
    return this.bar;
  }

  /** Return the handle of the curtain, for the pointer; the slider "Curtain" does the same by keyboard. */
  curtainHandle() {
    const handle = document.createElement("div");
    handle.className = "curtain furniture";
    handle.setAttribute("aria-hidden", "true");
    handle.title = "Curtain: drag it across";
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const { left, width } = this.stage.getBoundingClientRect();
      Settings.change({ curtain: Math.min(1, Math.max(0, (event.clientX - left) / width)) });
    });
    return handle;
  }

  /** Remember the level-0 point under the pointer. */
  point(event) {
    const { left, top } = this.stage.getBoundingClientRect();
    const { scale, x, y } = this.pane.overlay.transform();
    this.pointer = { x: (event.clientX - left - x) / scale, y: (event.clientY - top - y) / scale };
    this.read();
  }

  /** Update everything that depends on the viewport or the settings. */
  update() {
    const { curtain } = Settings.values;
    this.curtain.hidden = !this.pane.overlay.layer;
    this.curtain.style.left = `${100 * curtain}%`;
    this.curtain.classList.toggle("start", curtain < 0.02);  // its grip stays inside the pane
    this.curtain.classList.toggle("end", curtain > 0.98);
    this.measure();
    this.read();
  }

  /** Say nothing: there is no slide. */
  clear() {
    this.readout.textContent = this.bar.textContent = "";
    this.bar.hidden = this.curtain.hidden = true;
  }

  /** Show the value, the rank and the place under the pointer or, without one, at the centre of the view. */
  read() {
    const { slide, overlay } = this.pane;
    if (!slide) return;
    const point = this.pointer || this.pane.view();
    const hit = overlay.at(point.x, point.y);
    const [factor, unit] = slide.mpp ? [slide.mpp, "µm"] : [1, "px"];
    const place = `x ${Numbers.grouped(point.x * factor)}, y ${Numbers.grouped(point.y * factor)} ${unit}`;
    const parts = [this.pointer ? place : `centre ${place}`];
    if (hit) parts.unshift(`rank ${Numbers.grouped(hit.rank)} of ${Numbers.grouped(this.pane.total)}`);
    if (hit && overlay.layer.kind !== "rank") parts.unshift(Layers.text(hit.value, overlay.layer));
    this.readout.textContent = parts.join(" · ");
  }

  /** Make the scale bar the longest round length that fits. */
  measure() {
    const { slide, overlay } = this.pane;
    if (!slide) return;
    const pixels = overlay.transform().scale / (slide.mpp || 1);  // CSS pixels per µm, or per level-0 pixel
    const longest = 140 / pixels;
    const ten = 10 ** Math.floor(Math.log10(longest));
    const length = ten * [5, 2, 1].find((step) => step * ten <= longest);
    this.bar.hidden = false;
    this.bar.style.width = `${length * pixels}px`;
    const unit = slide.mpp ? "µm" : "px";
    this.bar.textContent = slide.mpp && length >= 1000 ? `${length / 1000} mm` : `${Number(length.toPrecision(1))} ${unit}`;
  }
}
