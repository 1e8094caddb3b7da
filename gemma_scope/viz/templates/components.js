// Direct logit attribution: running sum above, bars a layer below, heads.
(() => {
  const { data, byId, make, drawn, signed, largest, hover, onRedraw } = GS;
  const components = data.components;
  const layers = 1 + Math.max(-1, ...components.map((c) => c.layer ?? -1));
  const of = (kind, layer) => components.find((c) => c.kind === kind && c.layer === layer)?.value ?? 0;
  const slots = [{ name: "embed", bars: [["embed", components.filter((c) => c.layer === null).reduce((s, c) => s + c.value, 0)]] }];
  for (let layer = 0; layer < layers; layer++) {
    slots.push({ name: String(layer), bars: [["attn", of("attn_write", layer)], ["mlp", of("mlp_write", layer)]] });
  }
  let sum = 0;
  for (const slot of slots) slot.sum = sum += slot.bars.reduce((s, b) => s + b[1], 0);

  // Round steps of 1, 2 or 5 times a power of ten, about `count` of them.
  function ticks(low, high, count) {
    const raw = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) found.push(Math.abs(v) < step / 1e6 ? 0 : v);
    return { found, digits: Math.max(0, -Math.floor(Math.log10(step))) };
  }
  function panel(svg, values, top, height, left, width) {
    const low = Math.min(0, ...values);
    const high = Math.max(0, ...values);
    const pad = 0.06 * (high - low || 1);
    const y = (v) => top + (height * (high + pad - v)) / (high - low + 2 * pad);
    const { found, digits } = ticks(low - pad, high + pad, 4);
    for (const v of found) {
      svg.append(drawn("line", { class: v === 0 ? "zero" : "axis", x1: left, x2: width, y1: y(v), y2: y(v) }));
      svg.append(drawn("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, v === 0 ? "0" : signed(v, digits)));
    }
    return y;
  }
  function hatch() {
    const pattern = drawn("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    pattern.append(drawn("rect", { width: 5, height: 5, style: "fill:var(--mlp)" }), drawn("rect", { width: 2, height: 5, style: "fill:var(--page);opacity:.45" }));
    return drawn("defs", {}, pattern);
  }
  const words = { embed: "Embedding", attn: "Attention", mlp: "Feed-forward" };

  function draw() {
    const holder = byId("component-chart");
    const [left, right] = [46, 8];
    const width = Math.max(holder.clientWidth || 600, left + right + slots.length * 15);
    const unit = (width - left - right) / slots.length;
    const svg = drawn("svg", { width, height: 340, viewBox: `0 0 ${width} 340`, role: "img", "aria-label": "Direct contribution of attention and feed-forward by layer, with the running sum" }, hatch());
    const high = panel(svg, slots.map((s) => s.sum), 22, 112, left, width - right);
    const low = panel(svg, slots.flatMap((s) => s.bars.map((b) => b[1])), 172, 138, left, width - right);
    svg.append(drawn("text", { x: left, y: 12 }, "running sum, logits"), drawn("text", { x: left, y: 162 }, "contribution, logits"));
    const middle = (i) => left + unit * (i + 0.5);
    svg.append(drawn("polyline", { class: "run", points: slots.map((s, i) => `${middle(i).toFixed(1)},${high(s.sum).toFixed(1)}`).join(" ") }));
    const every = Math.ceil(22 / unit);
    slots.forEach((slot, i) => {
      svg.append(drawn("circle", { class: "dot", r: 2.5, cx: middle(i), cy: high(slot.sum) }));
      const thick = Math.min(16, (unit * 0.78) / slot.bars.length);
      slot.bars.forEach(([kind, value], j) => {
        const x = middle(i) + (j - slot.bars.length / 2) * thick;
        svg.append(drawn("rect", { class: kind, x: x + 0.5, width: Math.max(1, thick - 1), y: Math.min(low(0), low(value)), height: Math.max(0.5, Math.abs(low(value) - low(0))) }));
      });
      if (i === 0 || (i - 1) % every === 0) svg.append(drawn("text", { x: middle(i), y: 330, "text-anchor": "middle" }, i === 0 && unit < 34 ? "E" : slot.name));
      const band = drawn("rect", { class: "band", x: left + unit * i, width: unit, y: 16, height: 300 });
      hover(band, () => [
        i === 0 ? "Embedding" : `Layer ${slot.name}`,
        ...slot.bars.map(([kind, value]) => `${words[kind]}: ${signed(value, 3)}`),
        `Sum up to here: ${signed(slot.sum, 3)}`,
      ]);
      svg.append(band);
    });
    holder.replaceChildren(svg);
  }
  onRedraw(draw);

  // Heads: a table of buttons that choose the head in the section below.
  const heads = data.heads;
  if (!heads) return;
  const most = largest(heads.flat());
  const count = heads[0].length;
  const roomy = count <= 8;
  function cell(layer, head) {
    const value = heads[layer][head];
    const title = `Layer ${layer}, head ${head}: ${signed(value, 3)}`;
    const amount = (Math.abs(value || 0) / most).toFixed(3);
    const button = make("button", { type: "button", class: value < 0 ? "neg" : null, style: `--v:${amount}`, "aria-label": title, tabIndex: -1, "data-head": `${layer},${head}` });
    if (roomy) button.append(signed(value));
    button.addEventListener("click", () => GS.showHead?.(layer, head, true));
    hover(button, () => [`Layer ${layer}, head ${head}`, `Direct contribution: ${signed(value, 3)}`]);
    return make("td", {}, button);
  }
  const top = make("tr", {}, make("th", { scope: "col" }, roomy ? "layer" : "L"), ...heads[0].map((_, h) => make("th", { scope: "col" }, roomy ? `head ${h}` : h % 4 ? "" : String(h))));
  const body = heads.map((row, layer) => make("tr", {}, make("th", { scope: "row" }, String(layer)), ...row.map((_, head) => cell(layer, head))));
  const box = byId("heads");
  box.append(make("table", { class: roomy ? null : "tight" }, make("thead", {}, top), make("tbody", {}, ...body)));

  // One tab stop for all heads; arrow keys walk from one to the next.
  GS.markHead = (layer, head) => {
    const chosen = box.querySelector(`[data-head="${layer},${head}"]`);
    const before = box.querySelector(".here");
    if (before) Object.assign(before, { className: before.className.replace("here", ""), tabIndex: -1 });
    chosen?.classList.add("here");
    if (chosen) chosen.tabIndex = 0;
  };
  if (!data.attention) box.querySelector("button").tabIndex = 0;
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  box.addEventListener("keydown", (event) => {
    if (!(event.key in steps) || !event.target.dataset.head) return;
    event.preventDefault();
    const [layer, head] = event.target.dataset.head.split(",").map(Number);
    const [down, right] = steps[event.key];
    box.querySelector(`[data-head="${layer + down},${head + right}"]`)?.focus();
  });
})();
