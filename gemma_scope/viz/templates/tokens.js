// Token attributions: hover, arrow keys, a shared scale, numbers, the table.
(() => {
  const { data, byId, make, signed, largest, hover, walk, choose } = GS;
  const methods = data.attributions;
  const strips = [...document.querySelectorAll("#strips .strip")];
  const special = new Set(data.special);
  const words = data.tokens.map((_, i) => i).filter((i) => !special.has(i));
  const own = methods.map((m) => largest(words.map((i) => m.scores[i])));
  const chips = strips.map((strip) => [...strip.querySelectorAll(".t")]);
  let current = -1;

  function mark(index) {
    if (index === current) return;
    for (const row of chips) {
      row[current]?.classList.remove("here");
      row[index]?.classList.add("here");
    }
    current = index;
  }
  const name = (index) => `${data.tokens[index]}  (token ${index})`;

  strips.forEach((strip, method) => {
    const readout = document.querySelector(`[data-readout="${method}"]`);
    hover(strip, (event) => {
      const chip = event.target.closest?.(".t");
      const index = chip ? chips[method].indexOf(chip) : -1;
      mark(index);
      if (index < 0) return null;
      return [name(index), ...methods.map((m) => `${m.title}: ${signed(m.scores[index], 3)}`)];
    });
    strip.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") mark(-1);
    });
    function read(index) {
      readout.textContent = `${name(index)}: ${signed(methods[method].scores[index], 3)}`;
    }
    strip.addEventListener("click", () => current >= 0 && read(current));
    walk(strip, () => current, (index) => {
      const next = Math.min(data.tokens.length - 1, Math.max(0, index));
      mark(next);
      chips[method][next].scrollIntoView({ block: "nearest" });
      read(next);
    });
  });

  function scale(shared) {
    const scales = shared ? own.map(() => Math.max(...own)) : own;
    chips.forEach((row, method) => {
      row.forEach((chip, index) => {
        const fraction = Math.abs(methods[method].scores[index] || 0) / scales[method];
        chip.style.setProperty("--v", Math.min(1, fraction).toFixed(3));
      });
      document.querySelector(`[data-scale="${method}"]`).textContent = scales[method].toPrecision(3);
    });
  }
  byId("same-scale").addEventListener("change", (event) => scale(event.target.checked));
  byId("same-scale").parentElement.hidden = methods.length < 2;
  byId("numbers").addEventListener("change", (event) => {
    chips.forEach((row, method) => row.forEach((chip, index) => {
      if (event.target.checked) chip.dataset.n = signed(methods[method].scores[index]);
      else delete chip.dataset.n;
    }));
  });

  // The table is built when it is first asked for: long prompts have many rows.
  const box = byId("token-table");
  let order = { column: -1, down: false };

  function bar(value, most) {
    const width = (50 * Math.min(1, Math.abs(value || 0) / most)).toFixed(1) + "%";
    return make("span", { class: "diverging" }, make("div", { class: value < 0 ? "left" : "right", style: `width:${width}` }));
  }
  function row(index) {
    const cells = methods.map((m, method) => {
      const value = m.scores[index];
      return make("td", { class: "n" }, signed(value, 3), bar(value, own[method]));
    });
    const label = make("bdi", { class: "tok" }, data.tokens[index]);
    return make("tr", {}, make("td", { class: "muted n" }, String(index)), make("th", { scope: "row" }, label), ...cells);
  }
  function heading(title, column) {
    const button = make("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      order = { column, down: order.column === column ? !order.down : column >= 0 };
      table();
      box.querySelectorAll("thead button")[column + 1]?.focus();
    });
    const sort = order.column === column ? (order.down ? "descending" : "ascending") : null;
    return make("th", { scope: "col", "aria-sort": sort, class: "n" }, button);
  }
  function table() {
    const key = (i) => (order.column < 0 ? i : methods[order.column].scores[i] ?? -Infinity);
    const indices = data.tokens.map((_, i) => i).sort((a, b) => key(a) - key(b) || a - b);
    if (order.down) indices.reverse();
    const head = make("tr", {}, heading("#", -1), make("th", { scope: "col" }, "Token"), ...methods.map((m, i) => heading(m.title, i)));
    box.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...indices.map(row))));
  }
  choose(byId("tokens"), "data-view", (view) => {
    byId("strips").hidden = view !== "text";
    box.hidden = view !== "table";
    if (view === "table" && !box.firstChild) table();
  });
})();
