// Sparse features: a token's latents by layer, and what is known of each.
(() => {
  const { data, byId, make, signed, largest, hover, walk, choose } = GS;
  const found = data.features;
  if (!found) return;
  const special = new Set(data.special);
  const shown = data.tokens.map((_, i) => i).filter((i) => i >= found.first);
  const strip = byId("feature-tokens");
  const list = byId("feature-list");
  const card = byId("feature-card");
  const order = byId("feature-order");
  const told = Boolean(found.title);
  let layer = found.layers.length - 1;
  let token = data.target.position;
  let latent = null;

  const word = (index) => found.words[index];
  const rows = () => found.layers[layer].rows[token - found.first] || [];
  const key = (index) => `${found.layers[layer].name}#${index}`;
  const chip = (index) => make("bdi", { class: "tok" }, word(index));
  const amount = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

  function tokens() {
    const scores = found.layers[layer].explained;
    const most = scores ? largest(scores) : 1;
    strip.replaceChildren(...shown.map((i) => {
      const score = scores ? scores[i - found.first] || 0 : 0;
      const kind = `t${score < 0 ? " neg" : ""}${special.has(i) ? " special" : ""}${i === token ? " looks" : ""}`;
      return make("bdi", { class: kind, style: `--v:${Math.min(1, Math.abs(score) / most).toFixed(3)}`, "data-at": String(i) }, data.texts[i]);
    }));
  }
  function readout() {
    const one = found.layers[layer];
    const i = token - found.first;
    const parts = [`${data.tokens[token]} (token ${token}) at ${one.site}`];
    if (special.has(token)) parts.push("a control token: dictionaries are not trained on it");
    else {
      parts.push(`${one.counts[i]} latents are active`);
      if (told) parts.push(`they carry ${signed(one.explained[i])} of its relevance ${signed(one.totals[i])}`);
    }
    byId("feature-readout").textContent = parts.join("; ") + ".";
  }
  function bar(value, most) {
    const side = value < 0 ? "left" : "right";
    return make("div", { class: "diverging" }, make("div", { class: side, style: `width:${(50 * Math.min(1, Math.abs(value) / most)).toFixed(1)}%` }));
  }
  function line([index, activation, relevance], most) {
    const info = found.infos[key(index)];
    const button = make("button", { type: "button", class: "link", "data-latent": key(index) }, make("code", {}, String(index)));
    const favours = info ? info.up.slice(0, 3).flatMap(([w]) => [chip(w), " "]) : [];
    const cells = [make("th", { scope: "row" }, button, " ", make("span", { class: "small" }, ...favours)), make("td", { class: "n muted" }, amount(activation))];
    if (told) cells.push(make("td", { class: "n" }, signed(relevance)), make("td", { class: "wide" }, bar(relevance, most)));
    return make("tr", { class: key(index) === latent ? "marked" : null }, ...cells);
  }
  function latents() {
    const by = told && order.value === "relevance" ? (r) => Math.abs(r[2]) : (r) => r[1];
    const sorted = [...rows()].sort((a, b) => by(b) - by(a));
    if (!sorted.length) return void list.replaceChildren(make("p", { class: "muted" }, "No latent is active here."));
    const most = largest(sorted.map((r) => (told ? r[2] : r[1])));
    const titles = ["Latent, favours", "Activation", ...(told ? ["Relevance", ""] : [])];
    const head = make("tr", {}, ...titles.map((t, i) => make("th", { scope: "col", class: i ? "n" : null }, t)));
    list.replaceChildren(make("table", { class: "bars" }, make("thead", {}, head), make("tbody", {}, ...sorted.map((r) => line(r, most)))));
  }
  function example(one) {
    const most = largest(one.values);
    return make("p", { class: "example", dir: "auto" }, ...one.pieces.map((piece, i) =>
      make("bdi", { class: `t${i === one.peak ? " peak" : ""}`, style: `--c:var(--amount);--v:${(one.values[i] / most).toFixed(3)}`, title: one.values[i] ? amount(one.values[i]) : null }, word(piece))));
  }
  function show(name) {
    latent = name;
    const info = found.infos[name];
    const [dictionary, index] = name.split("#");
    if (!info) return void card.replaceChildren(make("p", { class: "muted" }, "Choose a latent."));
    const effects = (title, pairs) => make("p", { class: "small" }, make("b", {}, title), " ", ...pairs.flatMap(([w, v]) => [chip(w), " "]));
    card.replaceChildren(
      make("h3", {}, make("code", {}, dictionary), ` latent ${index}`),
      ...(info.told ? [make("p", {}, info.told)] : []),
      make("p", { class: "muted small" }, info.often === "never" ? "Never active on the text its examples are from." : `Active on ${info.often}; at most ${amount(info.most)}.`),
      effects("Raises", info.up),
      effects("Lowers", info.down),
      make("p", { class: "small" }, make("b", {}, info.examples.length ? "Strongest examples" : "No example is stored.")),
      ...info.examples.map(example),
    );
  }
  function draw() {
    tokens();
    readout();
    latents();
  }
  function pick(index) {
    token = Math.min(data.tokens.length - 1, Math.max(found.first, index));
    draw();
    strip.querySelector(".looks")?.scrollIntoView({ block: "nearest" });
  }
  choose(byId("feature-layers"), "data-layer", (index) => {
    layer = Number(index);
    draw();
  });
  order?.addEventListener("change", latents);
  strip.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-at]");
    if (at) pick(Number(at.dataset.at));
  });
  hover(strip, (event) => {
    const at = Number(event.target.closest?.("[data-at]")?.dataset.at ?? NaN);
    if (Number.isNaN(at)) return null;
    const top = (found.layers[layer].rows[at - found.first] || []).slice(0, 3).map((r) => `latent ${r[0]}: ${amount(r[1])}`);
    return [`${data.tokens[at]}  (token ${at})`, ...top];
  });
  walk(strip, () => token, pick);
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-latent]");
    if (!button) return;
    show(button.dataset.latent);
    latents();
    if (!list.contains(button)) card.scrollIntoView({ block: "nearest" });
  });
  draw();
  const first = rows().map((r) => r).sort((a, b) => Math.abs(b[told ? 2 : 1]) - Math.abs(a[told ? 2 : 1]))[0];
  show(first ? key(first[0]) : "#");
  latents();
})();
