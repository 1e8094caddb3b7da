// Patching: one signed heat map for each kind of site.
(() => {
  const { data, byId, make, signed, largest } = GS;
  const known = (value) => typeof value === "number";
  const share = (value) => (known(value) && data.gap ? `${Math.round((100 * value) / data.gap)}%`.replace("-", "−") : "not a number");
  const all = largest(data.maps.flatMap((m) => m.values.flat(2)));
  let unit = "effect";
  let common = true;

  // What a map shows: columns along `axis`, the other axis at `fixed` or, where
  // that is null, at its strongest entry.
  function pick(map, view, row, column) {
    const at = (other) => (view.axis === "position" ? [column, other] : [other, column]);
    const others = view.axis === "position" ? map.values[row][0].length : map.values[row].length;
    const value = (other) => { const [p, h] = at(other); return map.values[row][p][h]; };
    if (view.fixed !== null) return { value: value(view.fixed), place: at(view.fixed) };
    let best = 0;
    for (let i = 1; i < others; i++) if (Math.abs(value(i) ?? -1) > Math.abs(value(best) ?? -1)) best = i;
    return { value: value(best), place: at(best) };
  }
  const token = (p) => data.base[data.columns[p]];
  const other = (p) => data.source[data.columns[p]];
  const spot = (p) => (token(p) === other(p) ? token(p) : `${token(p)} ← ${other(p)}`);
  function lines(map, row, found) {
    const [p, h] = found.place;
    const site = map.layers[row] === null ? map.name : map.name.replace(/^\w+/, (base) => `${base}[${map.layers[row]}]`);
    const where = [site];
    if (map.heads) where.push(`head ${h}`);
    where.push(map.positions ? `at ${spot(p)} (token ${data.columns[p]})` : "all positions");
    if (!known(found.value)) return [where.join(", "), "not measured"];
    return [where.join(", "), `Effect ${signed(found.value, 3)}, ${share(found.value)} of the difference`, `Patched: ${signed(data.start + found.value, 3)}`];
  }
  function views(map) {
    const positions = data.columns.map((_, p) => p);
    const heads = map.values[0][0].map((_, h) => h);
    if (!map.positions || !map.heads) return [{ axis: map.heads ? "head" : "position", fixed: 0 }];
    return [
      { axis: "head", fixed: null, label: "layer × head, strongest position" },
      { axis: "position", fixed: null, label: "layer × position, strongest head" },
      ...heads.map((h) => ({ axis: "position", fixed: h, label: `layer × position of head ${h}` })),
      ...positions.map((p) => ({ axis: "head", fixed: p, label: `layer × head at ${spot(p)} (${data.columns[p]})` })),
    ];
  }

  data.maps.forEach((map, number) => {
    const box = byId(`map-${number}`);
    const readout = byId(`readout-${number}`);
    const select = byId(`view-${number}`);
    const choices = views(map);
    const own = largest(map.values.flat(2));
    let view = choices[0];
    choices.forEach((choice, i) => select.append(make("option", { value: String(i) }, choice.label ?? "")));
    select.parentElement.hidden = choices.length < 2;

    function heading(column) {
      if (view.axis === "head") return make("th", { scope: "col" }, `head ${column}`);
      if (!map.positions) return make("th", { scope: "col" }, "all positions");
      const differs = token(column) !== other(column);
      const parts = [make("bdi", {}, token(column))];
      if (differs) parts.push(make("bdi", { class: "small" }, `← ${other(column)}`));
      return make("th", { scope: "col", class: differs ? "differs" : null, title: spot(column) }, ...parts, make("small", {}, String(data.columns[column])));
    }
    function draw() {
      const count = view.axis === "head" ? map.values[0][0].length : map.values[0].length;
      const columns = Array.from({ length: Math.min(count, view.axis === "head" || !map.positions ? count : data.columns.length) }, (_, i) => i);
      const dense = columns.length > 24;
      const scale = common ? all : own;
      box.classList.toggle("dense", dense);
      const body = map.layers.map((layer, row) => {
        const cells = columns.map((column) => {
          const { value } = pick(map, view, row, column);
          const text = !known(value) ? "" : unit === "share" ? share(value) : signed(value);
          return make("td", { class: value < 0 ? "neg" : null, style: `--v:${Math.min(1, Math.abs(value || 0) / scale).toFixed(3)}`, "data-at": `${row},${column}` }, dense ? "" : text);
        });
        return make("tr", {}, make("th", { scope: "row" }, layer === null ? map.name : String(layer)), ...cells);
      });
      box.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "layer"), ...columns.map(heading))), make("tbody", {}, ...body)));
      byId(`scale-${number}`).textContent = unit === "share" ? share(scale * Math.sign(data.gap || 1)) : scale.toPrecision(3);
      reset();
    }
    const reset = GS.cells(box, readout, (row, column) => lines(map, row, pick(map, view, row, column)));
    select.addEventListener("change", () => {
      view = choices[Number(select.value)];
      draw();
    });
    byId("unit").addEventListener("change", (event) => {
      unit = event.target.value;
      draw();
    });
    byId("common").addEventListener("change", (event) => {
      common = event.target.checked;
      draw();
    });
    draw();
  });
  byId("unit").disabled = !data.gap;
})();
GS.start();
