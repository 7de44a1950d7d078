// Drawings with a slider: its position sets the line widths, arrowhead sizes and texts.
for (const figure of document.querySelectorAll("[data-slider]")) {
  const name = figure.dataset.slider;
  const data = JSON.parse(document.getElementById(`${name}-data`).textContent);
  const artist = (gid) => document.getElementById(`${name}-${gid}`);
  const controls = figure.querySelector(".controls");
  const input = controls.querySelector("input");
  const output = controls.querySelector("output");
  const sentenceBox = controls.querySelector(".said");
  const scrollBox = figure.querySelector(".scroll");
  const arrows = Object.keys(data.names).filter((gid) => artist(gid));
  let currentArrow = null;

  const sentence = (gid) => `${data.names[gid]}: ${data.texts[gid][Number(input.value)]}`;
  const showSentence = (gid) => {
    currentArrow = gid;
    sentenceBox.textContent = sentence(gid);
  };

  const showPosition = () => {
    const place = Number(input.value);
    for (const [gid, widths] of Object.entries(data.widths)) {
      const line = artist(gid)?.querySelector("path:not(.target)");
      line?.setAttribute("stroke-width", widths[place]);
    }
    for (const [gid, sizes] of Object.entries(data.sizes)) {
      const head = artist(gid);
      if (!head) continue;
      head.style.transformBox = "fill-box";
      head.style.transformOrigin = "center";
      head.style.transform = `scale(${sizes[place]})`;
    }
    for (const [gid, texts] of Object.entries(data.texts)) {
      const words = artist(gid)?.querySelector("text");
      if (words) words.textContent = texts[place];
    }
    for (const gid of arrows) artist(gid).querySelector("title").textContent = sentence(gid);
    output.textContent = data.positions[place];
    input.setAttribute("aria-valuetext", `${data.label} ${data.positions[place]}`);
    if (currentArrow) showSentence(currentArrow);
  };

  // The tab key stops at one arrow only; from there the arrow keys go from arrow to arrow.
  const focusArrow = (index) => {
    if (currentArrow) artist(currentArrow).setAttribute("tabindex", "-1");
    const gid = arrows[Math.min(Math.max(index, 0), arrows.length - 1)];
    artist(gid).setAttribute("tabindex", "0");
    artist(gid).focus();
    showSentence(gid);
  };
  arrows.forEach((gid, index) => {
    const element = artist(gid);
    element.setAttribute("tabindex", "-1");
    element.addEventListener("mouseenter", () => showSentence(gid));
    element.addEventListener("click", () => focusArrow(index));
    element.addEventListener("focus", () => showSentence(gid));
    element.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 };
      const targets = { Home: 0, End: arrows.length - 1 };
      if (event.key in steps) focusArrow(index + steps[event.key]);
      else if (event.key in targets) focusArrow(targets[event.key]);
      else return;
      event.preventDefault();
    });
  });
  if (arrows.length) {
    artist(arrows[0]).setAttribute("tabindex", "0");
    scrollBox.removeAttribute("tabindex");
  }
  input.addEventListener("input", showPosition);
  controls.hidden = false;
  showPosition();
}
