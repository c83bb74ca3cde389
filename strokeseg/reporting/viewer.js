"use strict";
function startViewer(viewer) {
  const brain = brainsprite(JSON.parse(viewer.dataset.parameters));
  const sliders = viewer.querySelectorAll("input[type=range]");
  const redraw = () => { brain.init(); brain.drawAll(); };
  const follow = () => sliders.forEach((slider) => { slider.value = brain.numSlice[slider.name]; });
  sliders.forEach((slider) => slider.addEventListener("input", () => {
    brain.numSlice[slider.name] = Number(slider.value);
    redraw();
  }));
  const shown = viewer.querySelector("input[type=checkbox]");
  const opacity = brain.overlay.opacity;
  shown.addEventListener("change", () => {
    brain.overlay.opacity = shown.checked ? opacity : 0;
    redraw();
  });
  brain.onclick = follow;
  follow();
}
document.querySelectorAll("details.viewer").forEach((viewer) => {
  // The sprites' sizes are known once they are decoded, and the canvas's once it is shown.
  viewer.addEventListener("toggle", async () => {
    await Promise.all([...viewer.querySelectorAll("img")].map((sprite) => sprite.decode()));
    startViewer(viewer);
  }, { once: true });
});
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details:not(.viewer)").forEach((part) => { part.open = true; });
});
