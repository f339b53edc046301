"use strict";
/** Strip: the patches of a slide with the highest and the lowest attention. */
const Strip = (() => {
  /** Show the strips of a map, of the run if several are shown; choose({button, scale, bounds}, byPointer) is called with a patch's scale and level-0 bounds. */
  function show(map, run, choose) {
    for (const end of ["highest", "lowest"]) {
      const list = document.getElementById(end);
      const patches = map ? map[end] : [];
      const title = document.getElementById(`${end}-title`);
      title.textContent = `${end === "highest" ? "Highest" : "Lowest"} attention${run ? `, ${run.split(/[\\/]/).pop()}` : ""}`;
      title.title = run;
      list.replaceChildren(...patches.map((entry) => makeItem(map, end, entry, choose)));
      list.parentElement.hidden = !patches.length;
    }
  }

  /** Return the level-0 bounds of a patch. */
  function bounds(scale, patch) {
    return { x: scale.coords[2 * patch], y: scale.coords[2 * patch + 1], side: scale.footprint };
  }

  /** Return the item of a patch: its picture with its value and rank. */
  function makeItem(map, end, entry, choose) {
    const item = document.createElement("li");
    const scale = map.scales[entry.scale];
    const value = Layers.text(Layers.values(map, scale, map.layers[0])[entry.patch], map.layers[0]);
    const rank = Numbers.grouped(scale.rank[entry.patch]);
    const button = item.appendChild(document.createElement("button"));
    button.type = "button";
    button.className = "patch";
    button.title = `rank ${rank}: ${value}`;
    button.setAttribute("aria-label", `Patch of rank ${rank}, ${value}`);
    const picture = button.appendChild(document.createElement("img"));
    Object.assign(picture, { alt: "", loading: "lazy", src: entry.url });
    button.appendChild(document.createElement("span")).textContent = rank;
    button.addEventListener("click", (event) => choose({ button, scale: entry.scale, bounds: bounds(scale, entry.patch) }, event.detail > 0));
    return item;
  }

  return { show };
})();
