"use strict";
// The page is complete without this script. It marks in the contents what is being read, folds the
// contents on narrow screens, unfolds everything for print, and keeps the tab key from stopping at
// boxes that need no scrolling.
{
  const contents = document.querySelector("nav.contents details");
  const links = [...document.querySelectorAll("nav.contents a")];
  const parts = links.map((link) => document.getElementById(link.hash.slice(1)));
  const band = new Set();

  const mark = (place) => {
    links.forEach((link, other) => {
      if (other === place) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
    const list = contents.parentElement;
    const above = links[place].offsetTop - list.scrollTop;
    if (above < 0 || above > list.clientHeight - 40) list.scrollTop += above - list.clientHeight / 2;
  };
  const follow = () => {
    const end = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 2;
    const place = end ? parts.length - 1 : parts.findLastIndex((part) => band.has(part));
    if (place >= 0) mark(place);
  };

  // What crosses a thin band below the top of the window is being read.
  const reading = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) band.add(entry.target);
        else band.delete(entry.target);
      }
      follow();
    },
    { rootMargin: "-12% 0px -84% 0px" },
  );
  parts.forEach((part) => reading.observe(part));
  // The last parts may be too short to reach the band.
  new IntersectionObserver(follow, { threshold: 1 }).observe(document.querySelector("footer"));
  mark(0);

  const wide = window.matchMedia("(min-width: 66rem)");
  const fold = () => { contents.open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();

  const boxes = [...document.querySelectorAll(".scroll")];
  const reach = () => {
    const wider = boxes.map((box) => box.scrollWidth > box.clientWidth);
    boxes.forEach((box, place) => { box.tabIndex = wider[place] ? 0 : -1; });
  };
  window.addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true);
  reach();

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
