"use strict";
// The guided tour: asks about a figure, and tells when asked. `?tour` opens it, `?tour=3` at the
// third question, so that a step can be linked to.
{
  const tour = document.getElementById("tour");
  const start = document.querySelector(".tour-start");
  const steps = [...tour.querySelectorAll(".step")];
  const button = (move) => tour.querySelector(`[data-move="${move}"]`);
  let place = 0;

  const remember = (query) => {
    try {
      history.replaceState(null, "", `${location.pathname}${query}${location.hash}`);
    } catch {
      // A page that may not change its address is toured all the same.
    }
  };
  const unmark = () => {
    document.querySelectorAll(".toured").forEach((one) => one.classList.remove("toured", "asking"));
  };
  const show = (next) => {
    place = next;
    steps.forEach((step, other) => { step.hidden = other !== place; });
    steps[place].querySelector(".found-out").hidden = true;
    button("answer").disabled = false;
    button("back").disabled = place === 0;
    button("next").disabled = place === steps.length - 1;
    unmark();
    const target = document.getElementById(steps[place].dataset.target);
    for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) {
      fold.open = true;
    }
    target.classList.add("toured", "asking");
    target.scrollIntoView({ block: "start" });
    remember(`?tour=${place + 1}`);
  };
  const begin = (first) => {
    tour.hidden = false;
    start.hidden = true;
    document.documentElement.classList.add("touring");
    show(Math.min(Math.max(first, 0), steps.length - 1));
    tour.focus({ preventScroll: true });
  };
  const end = () => {
    tour.hidden = true;
    start.hidden = false;
    document.documentElement.classList.remove("touring");
    unmark();
    remember("");
    start.querySelector("button").focus();
  };
  const moves = {
    answer: () => {
      const told = steps[place].querySelector(".found-out");
      told.hidden = false;
      document.querySelectorAll(".asking").forEach((one) => one.classList.remove("asking"));
      told.scrollIntoView({ block: "nearest" });
      button("answer").disabled = true;
      (button("next").disabled ? button("end") : button("next")).focus({ preventScroll: true });
    },
    back: () => show(place - 1),
    next: () => show(place + 1),
    end,
  };

  tour.addEventListener("click", (event) => {
    const move = event.target.dataset.move;
    if (move && !event.target.disabled) moves[move]();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !tour.hidden) end();
  });
  start.querySelector("button").addEventListener("click", () => begin(0));
  start.hidden = false;
  const asked = new URLSearchParams(location.search).get("tour");
  if (asked !== null) begin((Number.parseInt(asked, 10) || 1) - 1);
}
