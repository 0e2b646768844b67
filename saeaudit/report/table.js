"use strict";
// The table of findings: unpacks all rows, and draws those that are in view.
(async () => {
  const byId = (id) => document.getElementById(id);
  const packed = byId("packed");
  if (!packed || typeof DecompressionStream === "undefined") return;
  const bytes = Uint8Array.from(atob(packed.textContent.trim()), (c) => c.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = await new Response(plain).json();

  const count = data.kind.length, triple = data.kinds.length - 1;
  const table = byId("findings-table"), body = table.tBodies[0], view = byId("findings-view");
  const first = [...body.rows];
  const status = byId("findings-status"), detail = byId("detail");
  const words = byId("filter-words"), kinds = byId("filter-kind"), saes = byId("filter-sae");
  // What is known of each feature that rows name: its label, and how often it fires.
  const known = data.saes.map((sae) => {
    const table = new Map();
    let feature = 0;
    sae.steps.forEach((step, place) => {
      feature += step;
      table.set(feature, [sae.labels[place], sae.rates[place], sae.labels[place].toLowerCase()]);
    });
    return table;
  });
  const about = (i, feature) => known[data.sae[i]].get(feature) || ["", "", ""];
  const numbers = new Intl.NumberFormat("en");
  let before = 0;
  for (const row of data.features) {  // steps from the row before, and from the first
    before = row[0] += before;
    for (let place = 1; place < row.length; place++) row[place] += before;
  }
  const AHEAD = 6;
  let order = new Uint32Array(count), height = 80, drawn = [-1, -1];
  let sorted = { key: "weight", down: true };

  // How far the features of a row are from dependent: what one or two leave of another.
  const distance = (i) => {
    if (data.measure[i] === null) return NaN;
    const value = data.measure[i] / 1000;
    return data.kind[i] === triple ? value : Math.sqrt(Math.max(0, 1 - value * value));
  };
  const KEYS = {
    weight: (i) => data.weight[i],
    features: (i) => data.features[i][0],
    measure: distance,
    encoder: (i) => (data.encoder[i] === null ? NaN : data.encoder[i]),
  };

  // Where a finding stands in the order of what deserves a look first: 1, 2, …
  const places = new Uint32Array(count);
  const apart = Float64Array.from({ length: count }, (_, i) => distance(i) || 0);
  Uint32Array.from({ length: count }, (_, i) => i)
    .sort((a, b) => data.weight[b] - data.weight[a] || apart[a] - apart[b] || a - b)
    .forEach((i, at) => { places[i] = at + 1; });

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const member = (i, place) => {
    const item = element("li"), feature = data.features[i][place];
    const page = data.saes[data.sae[i]].page, [label, rate] = about(i, feature);
    const role = data.roles[i] ? data.roles[i][place] : "";
    if (role) item.append(element("i", role), " ");
    const name = element(page ? "a" : "b", feature);
    if (page) { name.href = page + feature; name.rel = "noreferrer"; }
    item.append(name);
    if (label) item.append(` ${label}`);
    if (rate) item.append(" ", element("i", `fires on ${rate}`));
    return item;
  };

  // How often all features of a row fire together: "0.12% 3.4" is a share and its ratio to chance.
  const together = (i) => {
    const [share, ratio] = data.together[i].split(" ");
    return ratio ? `together on ${share}, ${ratio} times chance` : "never together";
  };

  const members = (i) => {
    const list = element("ul");
    data.features[i].forEach((_, place) => list.append(member(i, place)));
    if (data.together[i]) {
      const item = element("li");
      item.append(element("i", together(i)));
      list.append(item);
    }
    return list;
  };

  const decimal = (parts, digits) => (parts / 10 ** digits).toFixed(digits);
  const figure = (parts, digits, what) => {
    const cell = element("td", parts === null ? "-" : decimal(parts, digits));
    if (what && parts !== null) cell.append(element("small", what));
    return cell;
  };

  const kind = (i) => data.kinds[data.kind[i]] +
    (data.saes.length > 1 ? ` · ${data.saes[data.sae[i]].name}` : "") +
    (data.more[i] ? ` · ${numbers.format(data.more[i])} more features` : "") +
    (data.known[i] ? " · known" : "");

  const row = (at) => {
    const i = order[at], made = element("tr"), cell = element("td");
    const open = element("button", numbers.format(places[i]));
    open.type = "button";
    open.dataset.at = at;
    open.setAttribute("aria-label", `Details of finding ${places[i]}`);
    cell.append(open);
    const what = element("td");
    what.append(element("small", kind(i)), members(i));
    made.setAttribute("aria-rowindex", at + 2);
    made.append(cell, what, figure(data.measure[i], 3, data.kind[i] === triple ? "residual" : "cosine"),
      figure(data.encoder[i], 2), figure(data.weight[i], 3));
    return made;
  };

  const spacer = (rows) => {
    const made = element("tr", undefined, "spacer"), cell = element("td");
    made.setAttribute("aria-hidden", "true");
    cell.colSpan = 5;
    cell.style.height = `${rows * height}px`;
    made.append(cell);
    return made;
  };

  const draw = (again) => {
    const from = Math.max(0, Math.floor(view.scrollTop / height) - AHEAD);
    const to = Math.min(order.length, from + Math.ceil(view.clientHeight / height) + 2 * AHEAD);
    if (!again && from === drawn[0] && to === drawn[1]) return;
    drawn = [from, to];
    const focused = document.activeElement.dataset ? document.activeElement.dataset.at : undefined;
    const rows = [];
    for (let at = from; at < to; at++) rows.push(row(at));
    body.replaceChildren(spacer(from), ...rows, spacer(order.length - to));
    if (focused !== undefined && !again) focus(Number(focused), false);
  };

  const focus = (at, scroll) => {
    if (at < 0 || at >= order.length) return;
    if (scroll) {
      const top = at * height, head = table.tHead.offsetHeight;
      if (top < view.scrollTop) view.scrollTop = top;
      if (top + height + head > view.scrollTop + view.clientHeight) {
        view.scrollTop = top + height + head - view.clientHeight;
      }
      draw(false);
    }
    const button = body.querySelector(`button[data-at="${at}"]`);
    if (button) button.focus({ preventScroll: true });
  };

  const matches = () => {
    const asked = words.value.trim().toLowerCase();
    const feature = /^\d+$/.test(asked) ? Number(asked) : -1;
    const rows = [];
    for (let i = 0; i < count; i++) {
      if (kinds.value !== "" && data.kind[i] !== Number(kinds.value)) continue;
      if (saes && saes.value !== "" && data.sae[i] !== Number(saes.value)) continue;
      if (asked && !data.features[i].some((one) => one === feature || about(i, one)[2].includes(asked))) {
        continue;
      }
      rows.push(i);
    }
    return Uint32Array.from(rows);
  };

  const update = () => {
    order = matches();
    const key = KEYS[sorted.key], values = new Float64Array(count);
    for (const i of order) values[i] = key(i);
    const sign = sorted.down ? -1 : 1;
    order.sort((a, b) => {
      const x = values[a], y = values[b];
      if (x === y) return places[a] - places[b];
      if (Number.isNaN(x) || Number.isNaN(y)) {
        return Number.isNaN(x) - Number.isNaN(y) || places[a] - places[b];
      }
      return sign * (x - y);
    });
    for (const head of table.tHead.rows[0].cells) {
      const button = head.querySelector("button");
      if (!button) continue;
      const chosen = button.dataset.key === sorted.key;
      if (chosen) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    table.setAttribute("aria-rowcount", order.length + 1);
    const of = order.length === count ? "" : ` of ${numbers.format(count)}`;
    status.textContent = `${numbers.format(order.length)}${of} findings`;
    let lines = 2;
    for (const i of order) {
      lines = Math.max(lines, data.features[i].length + (data.together[i] ? 1 : 0));
    }
    view.style.setProperty("--lines", lines);
    view.scrollTop = 0;
    measure();
  };

  const measure = () => {
    draw(true);
    const sample = body.querySelector("tr[aria-rowindex]");
    if (!sample) return;
    height = sample.getBoundingClientRect().height;
    draw(true);
  };

  const show = (i) => {
    byId("detail-title").textContent = kind(i);
    const measured = data.measure[i] === null ? "not known" : decimal(data.measure[i], 3);
    const facts = [[data.kind[i] === triple ? "Residual" : "Cosine of decoder rows", measured]];
    if (data.encoder[i] !== null) facts.push(["Cosine of encoder directions", decimal(data.encoder[i], 2)]);
    facts.push(["Look first", decimal(data.weight[i], 3)]);
    const list = element("dl");
    for (const [name, value] of facts) list.append(element("dt", name), element("dd", value));
    byId("detail-body").replaceChildren(members(i), list);
    detail.showModal();
  };

  const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) show(order[Number(button.dataset.at)]);
  });
  body.addEventListener("keydown", (event) => {
    const at = Number(event.target.dataset.at), step = STEPS[event.key];
    if (Number.isNaN(at) || step === undefined) return;
    event.preventDefault();
    focus(Math.min(order.length - 1, Math.max(0, at + step)), true);
  });
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const key = button.dataset.key;
    const down = key === "weight" || key === "encoder";
    sorted = { key, down: sorted.key === key ? !sorted.down : down };
    update();
  });
  let waiting;
  words.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(update, 120); });
  kinds.addEventListener("change", update);
  if (saes) saes.addEventListener("change", update);
  byId("detail-close").addEventListener("click", () => detail.close());
  detail.addEventListener("close", () => draw(false));
  view.addEventListener("scroll", () => draw(false), { passive: true });
  window.addEventListener("resize", measure);
  window.addEventListener("beforeprint", () => {
    view.classList.remove("live");
    body.replaceChildren(...first);
  });
  window.addEventListener("afterprint", () => {
    view.classList.add("live");
    draw(true);
  });

  for (const button of table.tHead.querySelectorAll("button")) button.disabled = false;
  byId("findings-filter").hidden = false;
  byId("findings-note").hidden = true;
  view.classList.add("live");
  table.setAttribute("aria-colcount", 5);
  update();
  document.documentElement.dataset.ready = "yes";
})();
