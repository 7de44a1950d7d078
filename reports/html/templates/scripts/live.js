// Follows the program that serves this page: asks for its version, and reloads when there is a newer
// one. What the reader sees and has set stays as it is.
"use strict";
(() => {
  const ASK_EVERY = 1000, SETTLING = 3000, FAILURES = 2, KEPT = "gradflow-live";
  const bar = document.getElementById("live");
  const standing = bar.querySelector("[role=status]");
  const age = bar.querySelector(".age");
  const shown = bar.dataset.version;

  // An element as its nearest id, its kind and its place among those of its kind under that id.
  function keyOf(element) {
    const scope = element.closest("[id]");
    if (scope === element) return [element.id, "", 0];
    const kind = element.localName;
    const all = [...(scope ?? document.body).querySelectorAll(kind)];
    return [scope?.id ?? "", kind, all.indexOf(element)];
  }
  function find([id, kind, place]) {
    const scope = id ? document.getElementById(id) : document.body;
    return kind ? scope?.querySelectorAll(kind)[place] : scope;
  }

  function placeOnScreen() {
    if (scrollY === 0) return null;
    const above = [...document.querySelectorAll("main [id]")].filter((element) => {
      const box = element.getBoundingClientRect();
      return box.height > 0 && box.top <= innerHeight / 3;
    });
    const anchor = above.at(-1);
    if (!anchor) return { top: scrollY };
    return { anchor: keyOf(anchor), offset: anchor.getBoundingClientRect().top, top: scrollY };
  }
  function scrollBack({ anchor, offset, top }) {
    const element = anchor && find(anchor);
    const distance = element ? element.getBoundingClientRect().top - offset : top - scrollY;
    scrollBy({ top: distance, behavior: "instant" });
  }

  const controls = () => document.querySelectorAll("main input, main select, main textarea");
  function keep() {
    const focused = document.activeElement;
    return {
      screen: placeOnScreen(),
      focused: focused && focused !== document.body ? keyOf(focused) : null,
      details: [...document.querySelectorAll("main details")].map((one) => [keyOf(one), one.open]),
      controls: [...controls()].map((one) => [keyOf(one), one.value, one.checked]),
    };
  }
  function setBack(control, value, checked) {
    if (control.value === value && control.checked === checked) return;
    control.value = value;
    control.checked = checked;
    for (const kind of ["input", "change"]) {
      control.dispatchEvent(new Event(kind, { bubbles: true }));
    }
  }

  // Charts and their controls come a moment after the page: what is missing is tried again while it
  // settles, until the reader takes over.
  function bringBack(kept) {
    let waiting = [
      ...kept.details.map(([key, open]) => [key, (one) => { one.open = open; }]),
      ...kept.controls.map(([key, value, checked]) => [key, (one) => setBack(one, value, checked)]),
    ];
    if (kept.focused) waiting.push([kept.focused, (one) => one.focus({ preventScroll: true })]);
    const settle = () => {
      waiting = waiting.filter(([key, act]) => {
        const element = find(key);
        if (element) act(element);
        return !element;
      });
      if (kept.screen) scrollBack(kept.screen);
    };
    const growth = new ResizeObserver(settle);
    const stop = () => growth.disconnect();
    growth.observe(document.body);
    for (const kind of ["wheel", "pointerdown", "keydown", "touchstart"]) {
      addEventListener(kind, stop, { once: true, passive: true });
    }
    setTimeout(stop, SETTLING);
    settle();
    history.scrollRestoration = "auto";
  }

  const memory = JSON.parse(sessionStorage.getItem(KEPT) ?? "null")
    ?? { reader: Math.random().toString(36).slice(2), kept: null };
  function remember(kept) {
    memory.kept = kept;
    sessionStorage.setItem(KEPT, JSON.stringify(memory));
  }

  let pressed = false;
  addEventListener("pointerdown", () => { pressed = true; });
  for (const kind of ["pointerup", "pointercancel"]) {
    addEventListener(kind, () => { pressed = false; });
  }

  let updated = null;
  function say(text) {
    // Read aloud when it changes, and only then; the age beside it changes all the time.
    if (standing.textContent !== text) standing.textContent = text;
  }
  function sayAge() {
    const seconds = updated === null ? null : Math.round((performance.now() - updated) / 1000);
    if (seconds === null) age.textContent = "";
    else if (seconds < 120) age.textContent = `updated ${seconds} s ago`;
    else age.textContent = `updated ${Math.round(seconds / 60)} min ago`;
  }

  let failures = 0;
  async function ask() {
    let news;
    try {
      const answer = await fetch(`version?reader=${memory.reader}&shown=${shown}`,
                                 { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(answer.statusText);
      news = await answer.json();
      failures = 0;
    } catch {
      failures += 1;
      if (failures < FAILURES) return true;
      say("no longer followed: the program that served this page has gone");
      bar.classList.add("gone");
      return false;
    }
    updated = news.age === null ? null : performance.now() - 1000 * news.age;
    if (news.version !== shown) {
      if (pressed) return true;
      remember(keep());
      history.scrollRestoration = "manual";
      location.reload();
      return false;
    }
    say(news.standing);
    return !news.ended;
  }
  async function follow() {
    const goesOn = await ask();
    sayAge();
    if (goesOn) setTimeout(follow, ASK_EVERY);
  }

  const kept = memory.kept;
  remember(null);
  if (kept) bringBack(kept);
  setInterval(sayAge, 1000);
  follow();
})();
