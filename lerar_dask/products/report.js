"use strict";
(() => {
  // ---- table of frames: only the rows in sight exist, so that 10,000 frames scroll as well as 10
  const frames = JSON.parse(document.getElementById("frames").textContent);
  const n = frames.name.length;
  const box = document.getElementById("table");
  const body = box.querySelector("tbody");
  const heads = [...box.querySelectorAll("th")];
  const keys = heads.map(h => h.dataset.key);
  const numeric = Object.fromEntries(keys.map(k => [k, frames[k].every(v => v === null || typeof v === "number") && frames[k].some(v => v !== null)]));
  const search = document.getElementById("search");
  const ROW = 27;
  let order = [...Array(n).keys()], shown = order, chosen = new Set(), sortKey = null, down = false, fate = "";
  const haystack = order.map(i => ["name", "path", "group", "reason"].map(k => frames[k][i] || "").join("\n").toLowerCase());

  heads.forEach((head, c) => {
    if (numeric[keys[c]]) head.classList.add("num");
    head.addEventListener("click", () => {
      down = sortKey === keys[c] ? !down : false;
      sortKey = keys[c];
      heads.forEach(h => h.classList.remove("up", "down"));
      head.classList.add(down ? "down" : "up");
      sort();
    });
  });

  function sort() {
    const values = frames[sortKey], sign = down ? -1 : 1;
    const empty = v => v === null || v === "";
    order = [...Array(n).keys()].sort((a, b) => {
      const p = values[a], q = values[b];
      if (empty(p) || empty(q)) return empty(p) - empty(q) || a - b;
      return (p < q ? -sign : p > q ? sign : 0) || a - b;
    });
    filter();
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = order.filter(i => (!fate || frames.fate[i] === fate) && (!chosen.size || chosen.has(i)) && words.every(w => haystack[i].includes(w)));
    document.getElementById("count").textContent = shown.length === n ? "" : `${shown.length} of ${n} shown` + (chosen.size ? " (selected in a plot)" : "");
    draw();
  }

  function cell(row, text, name) {
    const td = row.insertCell();
    td.textContent = text;
    if (name) td.className = name;
    return td;
  }

  function filler(height) {
    const row = body.insertRow();
    const td = row.insertCell();
    td.colSpan = keys.length;
    td.style.height = height + "px";
    row.style.pointerEvents = "none";
  }

  function draw() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
    const last = Math.min(shown.length, first + Math.ceil(box.clientHeight / ROW) + 24);
    body.textContent = "";
    if (first) filler(first * ROW);
    for (const i of shown.slice(first, last)) {
      const row = body.insertRow();
      if (chosen.has(i)) row.className = "on";
      keys.forEach(k => {
        const value = frames[k][i];
        const text = value === null ? "" : k === "date_obs" ? String(value).slice(0, 19).replace("T", " ") : numeric[k] ? format(value) : value;
        const td = cell(row, text, numeric[k] ? "num" : k === "fate" ? "fate-" + value : "");
        if (k === "name") td.title = frames.path[i];
        if (k === "reason") td.title = value || "";
      });
      row.addEventListener("click", () => pick(i));
    }
    if (last < shown.length) filler((shown.length - last) * ROW);
  }

  const format = v => Number.isInteger(v) ? String(v) : Math.abs(v) >= 100 ? v.toFixed(1) : Math.abs(v) >= 0.01 ? String(+v.toPrecision(4)) : v.toExponential(1);

  // ---- links between table and plots
  window.lerarSelect = indices => { chosen = new Set(indices); box.scrollTop = 0; filter(); };
  const source = () => window.Bokeh && Bokeh.documents.length ? Bokeh.documents[0].get_model_by_name("subs") : null;
  function pick(i) {
    const points = source();
    if (points) points.selected.indices = chosen.size === 1 && chosen.has(i) ? [] : [i];
  }
  addEventListener("keydown", event => { if (event.key === "Escape" && source()) source().selected.indices = []; });

  let pending = 0;
  box.addEventListener("scroll", () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(draw); });
  search.addEventListener("input", filter);
  document.getElementById("fates").addEventListener("click", event => {
    if (event.target.dataset.fate === undefined) return;
    fate = event.target.dataset.fate;
    for (const chip of event.currentTarget.children) chip.classList.toggle("on", chip === event.target);
    box.scrollTop = 0;
    filter();
  });
  document.getElementById("csv").addEventListener("click", () => {
    const names = ["path", ...keys.filter(k => k !== "name")];
    const quote = v => v === null ? "" : /[",\n]/.test(v) ? `"${String(v).replaceAll('"', '""')}"` : v;
    const lines = [names.join(","), ...shown.map(i => names.map(k => quote(frames[k][i])).join(","))];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = "frames.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  filter();

  // ---- pictures: a line between two steps
  for (const compare of document.querySelectorAll(".compare")) {
    const section = compare.closest("section"), steps = [...section.querySelectorAll(".steps img")];
    const slider = compare.querySelector("input");
    slider.addEventListener("input", () => compare.style.setProperty("--cut", slider.value + "%"));
    for (const [side, image] of [["left", "before"], ["right", "after"]]) {
      const choice = section.querySelector("select." + side);
      choice.addEventListener("change", () => { compare.querySelector("." + image).src = steps[choice.selectedIndex].src; });
    }
  }

  // ---- previews: wheel zooms about the pointer, dragging moves, double click shows all
  for (const viewer of document.querySelectorAll(".viewer")) {
    const image = viewer.querySelector("img");
    let zoom = 1, x = 0, y = 0, drag = null;
    const place = () => {
      const w = viewer.clientWidth, h = viewer.clientHeight;
      x = Math.min(0, Math.max(w - w * zoom, x));
      y = Math.min(0, Math.max(h - h * zoom, y));
      image.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
      viewer.classList.toggle("close", zoom * image.clientWidth > 3 * image.naturalWidth);
    };
    viewer.addEventListener("wheel", event => {
      event.preventDefault();
      const at = viewer.getBoundingClientRect(), px = event.clientX - at.left, py = event.clientY - at.top;
      const next = Math.min(40, Math.max(1, zoom * Math.exp(-event.deltaY * 0.0016)));
      x = px - (px - x) * next / zoom;
      y = py - (py - y) * next / zoom;
      zoom = next;
      place();
    }, { passive: false });
    viewer.addEventListener("pointerdown", event => { drag = [event.clientX - x, event.clientY - y]; viewer.setPointerCapture(event.pointerId); });
    viewer.addEventListener("pointermove", event => { if (drag) { x = event.clientX - drag[0]; y = event.clientY - drag[1]; place(); } });
    viewer.addEventListener("pointerup", () => { drag = null; });
    viewer.addEventListener("dblclick", () => { zoom = 1; x = y = 0; place(); });
  }
})();
