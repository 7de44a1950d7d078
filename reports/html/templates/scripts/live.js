// Keeps this page up to date: asks the server for the report's version and reloads if it is newer.
// The reader's scroll position, focus and settings are restored after a reload.
"use strict";
(() => {
  const POLL_INTERVAL = 1000, RESTORE_TIME = 3000; // milliseconds
  const FAILURES_ALLOWED = 2, STORAGE_KEY = "gradflow-live";
  const bar = document.getElementById("live");
  const statusLine = bar.querySelector("[role=status]");
  const age = bar.querySelector(".age");
  const shown = bar.dataset.version;

  // Locates an element: nearest id, tag name, and index among the elements of that tag under it.
  function locatorOf(element) {
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

  function scrollPosition() {
    if (scrollY === 0) return null;
    const above = [...document.querySelectorAll("main [id]")].filter((element) => {
      const box = element.getBoundingClientRect();
      return box.height > 0 && box.top <= innerHeight / 3;
    });
    const anchor = above.at(-1);
    if (!anchor) return { top: scrollY };
    return { anchor: locatorOf(anchor), offset: anchor.getBoundingClientRect().top, top: scrollY };
  }
  function restoreScroll({ anchor, offset, top }) {
    const element = anchor && find(anchor);
    const distance = element ? element.getBoundingClientRect().top - offset : top - scrollY;
    scrollBy({ top: distance, behavior: "instant" });
  }

  const controls = () => document.querySelectorAll("main input, main select, main textarea");
  function readerState() {
    const focused = document.activeElement;
    return {
      screen: scrollPosition(),
      focused: focused && focused !== document.body ? locatorOf(focused) : null,
      details: [...document.querySelectorAll("main details")]
        .map((one) => [locatorOf(one), one.open]),
      controls: [...controls()].map((one) => [locatorOf(one), one.value, one.checked]),
    };
  }
  function restoreControl(control, value, checked) {
    if (control.value === value && control.checked === checked) return;
    control.value = value;
    control.checked = checked;
    for (const kind of ["input", "change"]) {
      control.dispatchEvent(new Event(kind, { bubbles: true }));
    }
  }

  // Charts and their controls appear a moment after the page, so missing elements are tried again
  // while the page grows, until RESTORE_TIME has passed or the reader does something.
  function restoreReader(kept) {
    let waiting = [
      ...kept.details.map(([key, open]) => [key, (one) => { one.open = open; }]),
      ...kept.controls.map(([key, value, checked]) =>
        [key, (one) => restoreControl(one, value, checked)]),
    ];
    if (kept.focused) waiting.push([kept.focused, (one) => one.focus({ preventScroll: true })]);
    const settle = () => {
      waiting = waiting.filter(([key, act]) => {
        const element = find(key);
        if (element) act(element);
        return !element;
      });
      if (kept.screen) restoreScroll(kept.screen);
    };
    const growth = new ResizeObserver(settle);
    const stop = () => growth.disconnect();
    growth.observe(document.body);
    for (const kind of ["wheel", "pointerdown", "keydown", "touchstart"]) {
      addEventListener(kind, stop, { once: true, passive: true });
    }
    setTimeout(stop, RESTORE_TIME);
    settle();
    history.scrollRestoration = "auto";
  }

  const memory = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "null")
    ?? { reader: Math.random().toString(36).slice(2), kept: null };
  function remember(kept) {
    memory.kept = kept;
    sessionStorage.setItem(STORAGE_KEY, JSON.stringify(memory));
  }

  let pressed = false;
  addEventListener("pointerdown", () => { pressed = true; });
  for (const kind of ["pointerup", "pointercancel"]) {
    addEventListener(kind, () => { pressed = false; });
  }

  let updated = null;
  function showStatus(text) {
    // Screen readers announce this text when it changes; the age beside it is not announced.
    if (statusLine.textContent !== text) statusLine.textContent = text;
  }
  function showAge() {
    const seconds = updated === null ? null : Math.round((performance.now() - updated) / 1000);
    if (seconds === null) age.textContent = "";
    else if (seconds < 120) age.textContent = `updated ${seconds} s ago`;
    else age.textContent = `updated ${Math.round(seconds / 60)} min ago`;
  }

  let failures = 0;
  async function askVersion() {
    let news;
    try {
      const answer = await fetch(`version?reader=${memory.reader}&shown=${shown}`,
                                 { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(answer.statusText);
      news = await answer.json();
      failures = 0;
    } catch {
      failures += 1;
      if (failures < FAILURES_ALLOWED) return true;
      showStatus("no longer updated: the program that served this page has stopped");
      bar.classList.add("gone");
      return false;
    }
    updated = news.age === null ? null : performance.now() - 1000 * news.age;
    if (news.version !== shown) {
      if (pressed) return true;
      remember(readerState());
      history.scrollRestoration = "manual";
      location.reload();
      return false;
    }
    showStatus(news.standing);
    return !news.ended;
  }
  async function follow() {
    const continues = await askVersion();
    showAge();
    if (continues) setTimeout(follow, POLL_INTERVAL);
  }

  const kept = memory.kept;
  remember(null);
  if (kept) restoreReader(kept);
  setInterval(showAge, 1000);
  follow();
})();
