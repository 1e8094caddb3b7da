"use strict";
// What all parts of the page share: data, numbers, tooltip, theme, sections.
const GS = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  // Text goes in as text nodes only: tokens may hold any character.
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value === null || value === undefined) continue;
      if (name === "class") element.className = value;
      else if (name in element && typeof value !== "string") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function drawn(tag, properties = {}, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  const known = (value) => typeof value === "number";
  function signed(value, digits = 2) {
    if (!known(value)) return "not a number";
    const amount = Math.abs(value).toFixed(digits);
    return Number(amount) === 0 ? amount : (value < 0 ? "−" : "+") + amount;
  }
  function percent(value) {
    if (!known(value)) return "not a number";
    const hundred = 100 * value;
    if (hundred > 0 && hundred < 0.1) return "<0.1%";
    if (hundred < 100 && hundred >= 99.95) return ">99.9%";
    return hundred.toFixed(1) + "%";
  }
  const largest = (values) =>
    values.reduce((most, v) => (known(v) ? Math.max(most, Math.abs(v)) : most), 0) || 1;

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function ink(name) {
    return style(name).split(/\s+/).map(Number);
  }

  // One tooltip. `lines(event)` gives [title, ...rest] or null to hide it.
  const tip = byId("tip");
  function place(event, lines) {
    if (!lines) return void (tip.hidden = true);
    tip.replaceChildren(make("b", {}, lines[0]), ...lines.slice(1).map((l) => make("div", {}, l)));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, event.clientX + 14), innerWidth - box.width - 8);
    const below = event.clientY + 20;
    const above = event.clientY - box.height - 14;
    tip.style.left = left + "px";
    tip.style.top = (below + box.height < innerHeight ? below : Math.max(8, above)) + "px";
  }
  function hover(element, lines) {
    element.addEventListener("pointermove", (event) => place(event, lines(event)));
    element.addEventListener("pointerdown", (event) => place(event, lines(event)));
    // A finger leaves as soon as it lifts: its tooltip stays until the next tap.
    element.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") tip.hidden = true;
    });
  }
  addEventListener("pointerdown", () => (tip.hidden = true), { capture: true });
  addEventListener("scroll", () => (tip.hidden = true), { passive: true, capture: true });

  // Arrow keys walk through `count` things inside a focused element.
  function walk(element, current, go, step = { ArrowLeft: -1, ArrowRight: 1 }) {
    element.addEventListener("keydown", (event) => {
      if (!(event.key in step) && event.key !== "Home" && event.key !== "End") return;
      event.preventDefault();
      if (event.key === "Home") go(0);
      else if (event.key === "End") go(Infinity);
      else go(current() + step[event.key]);
    });
  }

  // A row of buttons of which one is pressed.
  function choose(group, attribute, act) {
    const buttons = [...group.querySelectorAll(`[${attribute}]`)];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        for (const other of buttons) other.setAttribute("aria-pressed", other === button);
        act(button.getAttribute(attribute));
      });
    }
  }

  // Cells marked data-at="row,column": pointing at one shows its lines, a click
  // or the arrow keys read them out. Returns what to call after redrawing.
  function cells(box, readout, lines, first = () => [0, 0]) {
    let here = null;
    const at = (target) => target.closest?.("td[data-at]")?.dataset.at.split(",").map(Number);
    hover(box, (event) => {
      const place = at(event.target);
      return place ? lines(...place) : null;
    });
    function go(row, column) {
      const cell = box.querySelector(`td[data-at="${row},${column}"]`);
      if (!cell) return;
      here?.classList.remove("here");
      here = cell;
      cell.classList.add("here");
      cell.scrollIntoView({ block: "nearest", inline: "nearest" });
      readout.textContent = lines(row, column).join(". ") + ".";
    }
    box.addEventListener("click", (event) => {
      const place = at(event.target);
      if (place) go(...place);
    });
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    box.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      if (!here) return go(...first());
      const [row, column] = at(here);
      const [down, right] = steps[event.key];
      go(row + down, column + right);
    });
    return () => {
      here = null;
      readout.textContent = "";
    };
  }

  // Redraw what holds colours or widths when either changes.
  const redraws = [];
  const redraw = () => redraws.forEach((draw) => draw());
  function onRedraw(draw) {
    redraws.push(draw);
    draw();
  }
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width !== innerWidth) requestAnimationFrame(redraw);
    width = innerWidth;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  function theme() {
    const names = { "": "automatic", light: "light", dark: "dark" };
    const button = byId("theme");
    const show = (name) => {
      if (name) document.documentElement.dataset.theme = name;
      else delete document.documentElement.dataset.theme;
      button.lastElementChild.textContent = names[name];
      redraw();
    };
    let stored = "";
    try { stored = localStorage.getItem("gemma-scope-theme") || ""; } catch { /* no storage in a frame */ }
    show(stored in names ? stored : "");
    button.hidden = false;
    button.addEventListener("click", () => {
      const order = Object.keys(names);
      const next = order[(order.indexOf(document.documentElement.dataset.theme || "") + 1) % 3];
      try { localStorage.setItem("gemma-scope-theme", next); } catch { /* as above */ }
      show(next);
    });
  }

  function sections() {
    const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
    const all = [...document.querySelectorAll("section")];
    let pending = false;
    function follow() {
      pending = false;
      const reached = all.filter((s) => s.getBoundingClientRect().top < 0.3 * innerHeight).at(-1);
      for (const [id, link] of links) {
        if (id === reached?.id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }
    addEventListener("scroll", () => {
      if (!pending) requestAnimationFrame(follow);
      pending = true;
    }, { passive: true });
    // In a notebook's frame "#lens" would mean a place in the notebook.
    for (const link of document.querySelectorAll('a[href^="#"]')) {
      link.addEventListener("click", (event) => {
        event.preventDefault();
        const section = byId(link.hash.slice(1));
        section.scrollIntoView();
        section.tabIndex = -1;
        section.focus({ preventScroll: true });
      });
    }
  }

  function start() {
    document.querySelectorAll("[data-needs-script]").forEach((e) => (e.hidden = false));
    theme();
    sections();
    let opened = [];
    addEventListener("beforeprint", () => {
      opened = [...document.querySelectorAll("details.howto:not([open])")];
      opened.forEach((d) => (d.open = true));
    });
    addEventListener("afterprint", () => opened.forEach((d) => (d.open = false)));
  }

  return { data, byId, make, drawn, signed, percent, largest, style, ink, hover, walk, choose, cells, onRedraw, start };
})();
