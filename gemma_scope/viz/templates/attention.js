// Attention: choose layer and head, then read token by token or as a matrix.
(() => {
  const { data, byId, make, signed, percent, hover, walk, choose, ink, style, onRedraw } = GS;
  const attention = data.attention;
  if (!attention) return;
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const weights = bytes(attention.weights);
  const keys = attention.keys && new Uint16Array(bytes(attention.keys).buffer);
  const [layers, heads, rows, entries] = attention.shape;
  const queries = attention.queries;
  const length = data.tokens.length;
  const strip = byId("attention-tokens");
  const canvas = byId("attention-matrix").firstElementChild;
  const readout = byId("attention-readout");
  let layer = layers - 1;
  let head = 0;
  let row = Math.max(0, queries.indexOf(data.target.position));

  // The probabilities of one query as [length]; what is not stored is 0.
  function looks(l, h, r) {
    const start = ((l * heads + h) * rows + r) * entries;
    const found = new Float32Array(length);
    for (let i = 0; i < entries; i++) {
      found[keys ? keys[start + i] : i] = (weights[start + i] / 255) ** 2;
    }
    return found;
  }
  const name = (index) => `${data.tokens[index]} (${index})`;

  const chips = data.tokens.map((label, index) => {
    const stored = queries.includes(index);
    const classes = ["t", data.special.includes(index) ? "special" : "", stored ? "" : "away"];
    return make("bdi", { class: classes.join(" ") }, data.texts[index]);
  });
  strip.classList.add("amounts");
  data.tokens.forEach((label, index) => {
    strip.append(chips[index]);
    for (const _ of label.matchAll(/↵/g)) strip.append(make("br"));
  });
  function showRow() {
    const found = looks(layer, head, row);
    chips.forEach((chip, index) => {
      chip.style.setProperty("--v", Math.sqrt(found[index]).toFixed(3));
      chip.classList.toggle("looks", index === queries[row]);
    });
    const order = [...found.keys()].sort((a, b) => found[b] - found[a]).slice(0, 5);
    const listed = order.filter((i) => found[i] >= 0.005).flatMap((i) => [" ", pointer(i), ` ${percent(found[i])},`]);
    if (listed.length) listed.push(listed.pop().replace(",", "."));
    else listed.push(" nothing that stands out.");
    readout.replaceChildren(`Layer ${layer}, head ${head}: `, make("b", {}, name(queries[row])), " looks at", ...listed);
  }
  // A name that leads to its token: in long prompts it may be out of sight.
  function pointer(index) {
    const button = make("button", { type: "button", class: "link" }, name(index));
    button.addEventListener("click", () => {
      chips.forEach((chip, i) => chip.classList.toggle("here", i === index));
      chips[index].scrollIntoView({ block: "nearest" });
    });
    return button;
  }
  function setQuery(index) {
    const next = queries.indexOf(index);
    if (next < 0) {
      readout.textContent = `${name(index)}: not stored; the page keeps the last ${rows} tokens of a prompt this long.`;
      return;
    }
    setRow(next);
  }
  function setRow(next) {
    row = Math.max(0, Math.min(rows - 1, next));
    showRow();
    drawMatrix();
  }
  strip.addEventListener("click", (event) => {
    const index = chips.indexOf(event.target.closest?.(".t"));
    if (index >= 0) setQuery(index);
  });
  hover(strip, (event) => {
    const index = chips.indexOf(event.target.closest?.(".t"));
    if (index < 0) return null;
    const weight = looks(layer, head, row)[index];
    return [name(index), `${percent(weight)} of the attention of ${name(queries[row])}`];
  });
  walk(strip, () => row, (next) => {
    setRow(next);
    chips[queries[row]].scrollIntoView({ block: "nearest" });
  });

  // One head as a picture; where it has fewer pixels than weights, a pixel
  // shows the largest of its weights, so that lone ones do not vanish.
  function sheet(l, h, limit) {
    const [wide, tall] = [Math.min(limit, length), Math.min(limit, rows)];
    const image = new ImageData(wide, tall);
    const [red, green, blue] = ink("--amount");
    for (let r = 0; r < rows; r++) {
      const found = looks(l, h, r);
      const start = Math.floor((r * tall) / rows) * wide;
      for (let k = 0; k < length; k++) {
        if (!found[k]) continue;
        const at = 4 * (start + Math.floor((k * wide) / length));
        const alpha = Math.max(image.data[at + 3], 255 * Math.sqrt(found[k]));
        image.data.set([red, green, blue, alpha], at);
      }
    }
    const small = make("canvas", {});
    small.width = wide;
    small.height = tall;
    small.getContext("2d").putImageData(image, 0, 0);
    return small;
  }
  // The matrix: labelled where cells are large enough to read.
  let frame = null;
  function drawMatrix() {
    const holder = byId("attention-matrix");
    if (holder.hidden) return;
    const room = holder.clientWidth - 36;
    const labelled = length <= 60;
    const pen = canvas.getContext("2d");
    const font = `11px ${style("--sans")}`;
    const cut = (text) => (text.length > 13 ? text.slice(0, 12) + "…" : text);
    pen.font = font;
    const margin = labelled ? 10 + Math.max(...data.tokens.map((t) => pen.measureText(cut(t)).width)) : 0;
    const unit = labelled ? Math.max(15, Math.min(30, (room - margin) / length)) : room / length;
    const tall = labelled ? unit : Math.min(8, 560 / rows);
    const ratio = devicePixelRatio || 1;
    const [width, height] = [margin + unit * length, margin + tall * rows];
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    pen.scale(ratio, ratio);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(sheet(layer, head, labelled ? Infinity : 640), margin, margin, unit * length, tall * rows);
    pen.strokeStyle = style("--strong");
    pen.strokeRect(margin + 0.5, margin + 0.5, unit * length - 1, tall * rows - 1);
    pen.strokeStyle = style("--accent");
    pen.lineWidth = 2;
    pen.strokeRect(margin + 1, margin + tall * row, unit * length - 2, tall);
    frame = { margin, unit, tall };
    if (!labelled) return;
    pen.fillStyle = style("--muted");
    pen.font = font;
    pen.textAlign = "right";
    queries.forEach((q, r) => pen.fillText(cut(data.tokens[q]), margin - 5, margin + tall * (r + 0.5) + 4));
    pen.textAlign = "left";
    data.tokens.forEach((token, k) => {
      pen.save();
      pen.translate(margin + unit * (k + 0.5) + 4, margin - 5);
      pen.rotate(-Math.PI / 2);
      pen.fillText(cut(token), 0, 0);
      pen.restore();
    });
  }
  function cellAt(event) {
    const box = canvas.getBoundingClientRect();
    const key = Math.floor((event.clientX - box.left - frame.margin) / frame.unit);
    const query = Math.floor((event.clientY - box.top - frame.margin) / frame.tall);
    return key >= 0 && key < length && query >= 0 && query < rows ? [query, key] : null;
  }
  hover(canvas, (event) => {
    const place = cellAt(event);
    if (!place) return null;
    const [query, key] = place;
    return [percent(looks(layer, head, query)[key]), `${name(queries[query])} looks at ${name(key)}`];
  });
  canvas.addEventListener("click", (event) => {
    const place = cellAt(event);
    if (place) setQuery(queries[place[0]]);
  });
  walk(canvas, () => row, setRow, { ArrowUp: -1, ArrowDown: 1 });

  function drawHeads() {
    const list = byId("head-list");
    const held = list.contains(document.activeElement);
    list.replaceChildren(...Array.from({ length: heads }, (_, h) => {
      const thumb = make("canvas", { "aria-hidden": "true" });
      thumb.width = thumb.height = 132;
      const pen = thumb.getContext("2d");
      pen.imageSmoothingEnabled = false;
      pen.drawImage(sheet(layer, h, 66), 0, 0, 132, 132);
      const score = data.heads?.[layer]?.[h];
      const text = score === undefined ? `head ${h}` : `head ${h}: ${signed(score)}`;
      const button = make("button", { type: "button", "aria-pressed": String(h === head) }, thumb, make("span", {}, text));
      button.addEventListener("click", () => show(layer, h));
      return button;
    }));
    if (held) list.children[head].focus();
  }
  function show(l, h, jump = false) {
    layer = Math.max(0, Math.min(layers - 1, l));
    head = h;
    byId("layer").value = String(layer);
    GS.markHead?.(layer, head);
    drawHeads();
    drawMatrix();
    showRow();
    if (jump) byId("attention").scrollIntoView();
  }
  GS.showHead = show;

  const select = byId("layer");
  for (let l = 0; l < layers; l++) {
    const kind = attention.kinds[l] ? `, ${attention.kinds[l]}` : "";
    select.append(make("option", { value: String(l) }, `Layer ${l}${kind}`));
  }
  select.addEventListener("change", () => show(Number(select.value), head));
  byId("layer-down").addEventListener("click", () => show(layer - 1, head));
  byId("layer-up").addEventListener("click", () => show(layer + 1, head));
  choose(byId("attention"), "data-view", (view) => {
    strip.hidden = view !== "tokens";
    byId("attention-matrix").hidden = view !== "matrix";
    drawMatrix();
  });

  // Start at the head that writes most towards the target.
  if (data.heads) {
    const flat = data.heads.flatMap((r, l) => r.map((v, h) => [Math.abs(v || 0), l, h]));
    [, layer, head] = flat.reduce((best, next) => (next[0] > best[0] ? next : best));
  }
  onRedraw(() => show(layer, head));
  strip.scrollTop = chips[queries[row]].offsetTop - strip.clientHeight / 2;
})();
GS.start();
