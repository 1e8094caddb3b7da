// Relevance by layer and token: one signed heat map.
(() => {
  const { data, byId, make, signed, largest } = GS;
  const flow = data.flow;
  if (!flow) return;
  const box = byId("flow-map");
  const words = data.tokens.map((_, i) => i).filter((i) => !data.special.includes(i));
  const scale = largest(flow.values.flatMap((row) => words.map((i) => row[i])));
  const dense = data.tokens.length > 16;
  box.classList.toggle("dense", dense);
  byId("flow-scale").textContent = scale.toPrecision(3);

  const lines = (row, column) => [
    `${flow.labels[row]}, ${data.tokens[column]} (${column})`,
    `Relevance: ${signed(flow.values[row][column], 3)}`,
    `All tokens of this row: ${signed(flow.sums[row], 3)} of ${signed(flow.target, 3)}`,
  ];
  function cell(row, column) {
    const value = flow.values[row][column];
    const amount = Math.min(1, Math.abs(value || 0) / scale).toFixed(3);
    return make("td", { class: value < 0 ? "neg" : null, style: `--v:${amount}`, "data-at": `${row},${column}` }, dense ? "" : signed(value));
  }
  const heading = (column) => make("th", { scope: "col", title: data.tokens[column] }, make("bdi", {}, data.tokens[column]), make("small", {}, String(column)));
  const head = make("tr", {}, make("th", { scope: "col" }, "site"), ...data.tokens.map((_, i) => heading(i)), make("th", { scope: "col" }, "sum"));
  const body = flow.labels.map((label, row) =>
    make("tr", {}, make("th", { scope: "row" }, label), ...data.tokens.map((_, i) => cell(row, i)), make("td", { class: "sum" }, signed(flow.sums[row]))));
  box.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));

  GS.cells(box, byId("flow-readout"), lines, () => [flow.labels.length - 1, data.target.position]);
})();
