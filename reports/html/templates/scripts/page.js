"use strict";
// The page is complete without this script. It marks the section being read in the contents, folds
// the contents on narrow screens, unfolds everything for print, and keeps the tab key from stopping
// at boxes that need no scrolling.
{
  const contents = document.querySelector("nav.contents details");
  const links = [...document.querySelectorAll("nav.contents a")];
  const targets = links.map((link) => document.getElementById(link.hash.slice(1)));
  const inBand = new Set();

  const markCurrent = (place) => {
    links.forEach((link, other) => {
      if (other === place) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
    const list = contents.parentElement;
    const above = links[place].offsetTop - list.scrollTop;
    if (above < 0 || above > list.clientHeight - 40) list.scrollTop += above - list.clientHeight / 2;
  };
  const markWhatIsRead = () => {
    const end = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 2;
    const place = end ? targets.length - 1 : targets.findLastIndex((part) => inBand.has(part));
    if (place >= 0) markCurrent(place);
  };

  // An element that crosses a thin band below the top of the window is being read.
  const bandObserver = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) inBand.add(entry.target);
        else inBand.delete(entry.target);
      }
      markWhatIsRead();
    },
    { rootMargin: "-12% 0px -84% 0px" },
  );
  targets.forEach((part) => bandObserver.observe(part));
  // The last elements may be too short to reach the band.
  const footer = document.querySelector("footer");
  new IntersectionObserver(markWhatIsRead, { threshold: 1 }).observe(footer);
  markCurrent(0);

  const wide = window.matchMedia("(min-width: 66rem)");
  const foldContents = () => { contents.open = wide.matches; };
  wide.addEventListener("change", foldContents);
  foldContents();

  const boxes = [...document.querySelectorAll(".scroll")];
  const updateTabStops = () => {
    const wider = boxes.map((box) => box.scrollWidth > box.clientWidth);
    boxes.forEach((box, place) => { box.tabIndex = wider[place] ? 0 : -1; });
  };
  window.addEventListener("resize", updateTabStops);
  document.addEventListener("toggle", updateTabStops, true);
  updateTabStops();

  const folds = [...document.querySelectorAll("main details")];
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = folds.filter((one) => !one.open);
    closed.forEach((one) => { one.open = true; });
  });
  window.addEventListener("afterprint", () => {
    closed.forEach((one) => { one.open = false; });
  });
}
