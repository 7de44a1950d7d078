// Drawings with a slider: widths of lines, sizes of their heads and texts, by position.
for (const figure of document.querySelectorAll("[data-slider]")) {
  const name = figure.dataset.slider;
  const data = JSON.parse(document.getElementById(`${name}-data`).textContent);
  const part = (gid) => document.getElementById(`${name}-${gid}`);
  const controls = figure.querySelector(".controls");
  const input = controls.querySelector("input");
  const output = controls.querySelector("output");
  const said = controls.querySelector(".said");
  const scroll = figure.querySelector(".scroll");
  const arrows = Object.keys(data.names).filter((gid) => part(gid));
  let current = null;

  const sentence = (gid) => `${data.names[gid]}: ${data.texts[gid][Number(input.value)]}`;
  const say = (gid) => {
    current = gid;
    said.textContent = sentence(gid);
  };

  const show = () => {
    const place = Number(input.value);
    for (const [gid, widths] of Object.entries(data.widths)) {
      const line = part(gid)?.querySelector("path:not(.target)");
      line?.setAttribute("stroke-width", widths[place]);
    }
    for (const [gid, sizes] of Object.entries(data.sizes)) {
      const head = part(gid);
      if (!head) continue;
      head.style.transformBox = "fill-box";
      head.style.transformOrigin = "center";
      head.style.transform = `scale(${sizes[place]})`;
    }
    for (const [gid, texts] of Object.entries(data.texts)) {
      const words = part(gid)?.querySelector("text");
      if (words) words.textContent = texts[place];
    }
    for (const gid of arrows) part(gid).querySelector("title").textContent = sentence(gid);
    output.textContent = data.positions[place];
    input.setAttribute("aria-valuetext", `${data.label} ${data.positions[place]}`);
    if (current) say(current);
  };

  // One stop for the keyboard; from there the arrow keys go from arrow to arrow.
  const go = (index) => {
    if (current) part(current).setAttribute("tabindex", "-1");
    const gid = arrows[Math.min(Math.max(index, 0), arrows.length - 1)];
    part(gid).setAttribute("tabindex", "0");
    part(gid).focus();
    say(gid);
  };
  arrows.forEach((gid, index) => {
    const element = part(gid);
    element.setAttribute("tabindex", "-1");
    element.addEventListener("mouseenter", () => say(gid));
    element.addEventListener("click", () => go(index));
    element.addEventListener("focus", () => say(gid));
    element.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 };
      const targets = { Home: 0, End: arrows.length - 1 };
      if (event.key in steps) go(index + steps[event.key]);
      else if (event.key in targets) go(targets[event.key]);
      else return;
      event.preventDefault();
    });
  });
  if (arrows.length) {
    part(arrows[0]).setAttribute("tabindex", "0");
    scroll.removeAttribute("tabindex");
  }
  input.addEventListener("input", show);
  controls.hidden = false;
  show();
}
