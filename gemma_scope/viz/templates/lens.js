// The logit lens: a window of columns, a map of all of them, a line chart.
(() => {
  const { data, byId, make, drawn, percent, hover, ink, style, onRedraw } = GS;
  const lens = data.lens;
  const rows = lens.labels.length;
  const columns = lens.positions.length;
  const most = columns > 40 ? 32 : columns; // columns drawn at a time
  const goal = lens.positions.indexOf(data.target.position);
  const box = byId("lens-grid");
  const map = byId("lens-map");
  const range = byId("lens-start");
  const readout = byId("lens-readout");
  let first = Math.max(0, Math.min(columns - most, (goal < 0 ? columns - 1 : goal) - most + 1));
  let shade = "top";
  let here = null;

  // Ranks are shaded by logarithm: the top token full, the 10,000th not at all.
  function amount(row, column) {
    if (shade === "top") return lens.top_probs[row][column];
    if (shade === "prob") return lens.target_probs[row][column];
    return Math.max(0, 1 - Math.log10(1 + lens.target_ranks[row][column]) / 4);
  }
  function text(row, column) {
    if (shade === "top") return lens.words[lens.top[row][column]];
    if (shade === "prob") return percent(lens.target_probs[row][column]);
    return "#" + (lens.target_ranks[row][column] + 1).toLocaleString("en");
  }
  function short(label) {
    const match = /\[(\d+)\]$/.exec(label);
    return match ? match[1] : label;
  }
  function lines(row, column) {
    const rank = (lens.target_ranks[row][column] + 1).toLocaleString("en");
    return [
      `${lens.labels[row]}, after ${data.tokens[lens.positions[column]]} (token ${lens.positions[column]})`,
      `Would continue with ${lens.words[lens.top[row][column]]}, ${percent(lens.top_probs[row][column])}`,
      `Target ${data.target.label}: ${percent(lens.target_probs[row][column])}, rank ${rank}`,
    ];
  }

  function cell(row, column) {
    const hit = lens.target_ranks[row][column] === 0;
    const classes = [hit ? "hit" : "", column === goal ? "goal" : ""].join(" ").trim();
    return make("td", { class: classes, style: `--v:${(amount(row, column) || 0).toFixed(3)}`, "data-at": `${row},${column}` }, make("bdi", {}, text(row, column)));
  }
  function draw() {
    const shown = Array.from({ length: most }, (_, i) => first + i);
    const head = shown.map((c) => make("th", { scope: "col", class: c === goal ? "goal" : null }, make("bdi", {}, data.tokens[lens.positions[c]]), make("small", {}, String(lens.positions[c]))));
    const body = lens.labels.map((label, row) => make("tr", {}, make("th", { scope: "row", title: label }, short(label)), ...shown.map((c) => cell(row, c))));
    box.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "layer"), ...head)), make("tbody", {}, ...body)));
    here = null;
  }
  function at(target) {
    const td = target.closest?.("td");
    return td ? td.dataset.at.split(",").map(Number) : null;
  }
  hover(box, (event) => {
    const place = at(event.target);
    return place && lines(...place);
  });
  function select(row, column) {
    here?.classList.remove("here");
    here = box.querySelector(`td[data-at="${row},${column}"]`);
    if (!here) return;
    here.classList.add("here");
    readout.textContent = lines(row, column).join(". ") + ".";
  }
  box.addEventListener("click", (event) => {
    const place = at(event.target);
    if (place) select(...place);
  });

  // The map: one small cell for every layer and position, with the window.
  function paint() {
    const ratio = devicePixelRatio || 1;
    const width = map.clientWidth;
    const height = map.clientHeight;
    map.width = width * ratio;
    map.height = height * ratio;
    const pen = map.getContext("2d");
    const image = pen.createImageData(columns, rows);
    const [red, green, blue] = ink("--amount");
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        image.data.set([red, green, blue, 255 * (amount(row, column) || 0)], 4 * (row * columns + column));
      }
    }
    const sheet = make("canvas", {});
    sheet.width = columns;
    sheet.height = rows;
    sheet.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = columns > map.width;
    pen.drawImage(sheet, 0, 0, map.width, map.height);
    pen.strokeStyle = style("--ink");
    pen.lineWidth = 2 * ratio;
    const unit = map.width / columns;
    pen.strokeRect(first * unit + ratio, ratio, most * unit - 2 * ratio, map.height - 2 * ratio);
  }
  function move(start) {
    first = Math.round(Math.max(0, Math.min(columns - most, start)));
    range.value = first;
    draw();
    paint();
  }
  if (columns > most) {
    map.hidden = byId("lens-first").hidden = false;
    range.max = columns - most;
    range.value = first;
    range.addEventListener("input", () => move(Number(range.value)));
    const drag = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = map.getBoundingClientRect();
      move(((event.clientX - box.left) / box.width) * columns - most / 2);
    };
    map.addEventListener("pointerdown", drag);
    map.addEventListener("pointermove", drag);
    onRedraw(paint);
  }
  byId("lens-shade").addEventListener("change", (event) => {
    shade = event.target.value;
    byId("lens-low").textContent = shade === "rank" ? "#10,000" : "0%";
    byId("lens-high").textContent = shade === "rank" ? "#1" : "100%";
    const [left, top] = [box.scrollLeft, box.scrollTop];
    draw();
    box.scrollTo({ left, top, behavior: "instant" });
    if (columns > most) paint();
  });
  draw();
  box.scrollLeft = box.scrollWidth; // the prediction is made at the right end
  box.scrollTop = box.scrollHeight;

  // The target's probability at the predicting position, layer by layer.
  function line() {
    const holder = byId("lens-line");
    const column = goal < 0 ? columns - 1 : goal;
    const width = Math.min(holder.clientWidth || 600, 760);
    const [height, left, right, top, bottom] = [150, 44, 12, 10, 24];
    const x = (row) => left + ((width - left - right) * row) / Math.max(1, rows - 1);
    const y = (p) => top + (height - top - bottom) * (1 - p);
    const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Probability of the target by layer; ${percent(lens.target_probs[rows - 1][column])} in the last row` });
    for (const p of [0, 0.5, 1]) {
      svg.append(drawn("line", { class: p ? "axis" : "zero", x1: left, x2: width - right, y1: y(p), y2: y(p) }));
      svg.append(drawn("text", { x: left - 6, y: y(p) + 4, "text-anchor": "end" }, `${100 * p}%`));
    }
    const points = lens.labels.map((_, row) => `${x(row).toFixed(1)},${y(lens.target_probs[row][column] || 0).toFixed(1)}`);
    svg.append(drawn("polyline", { class: "run", points: points.join(" ") }));
    const every = Math.ceil((rows * 34) / (width - left));
    lens.labels.forEach((label, row) => {
      svg.append(drawn("circle", { class: "dot", r: 2.5, cx: x(row), cy: y(lens.target_probs[row][column] || 0) }));
      if ((rows - 1 - row) % every === 0) svg.append(drawn("text", { x: x(row), y: height - 6, "text-anchor": "middle" }, short(label)));
    });
    holder.replaceChildren(svg);
    hover(svg, (event) => {
      const place = (event.clientX - svg.getBoundingClientRect().left - left) / (width - left - right);
      const row = Math.max(0, Math.min(rows - 1, Math.round(place * (rows - 1))));
      return lines(row, column);
    });
  }
  onRedraw(line);

  // Arrow keys scroll; with Shift held they walk the cells.
  box.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !event.shiftKey) return;
    event.preventDefault();
    const [row, column] = here ? at(here) : [rows - 1, first + most - 1];
    const next = [row + (here ? step[0] : 0), column + (here ? step[1] : 0)];
    if (next[0] < 0 || next[0] >= rows || next[1] < 0 || next[1] >= columns) return;
    if (next[1] < first || next[1] >= first + most) move(next[1] - most / 2);
    select(...next);
    here?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
})();
