"use strict";
// The script of review.html: shows one record at a time, takes judgements by key, keeps them in localStorage, saves and
// loads them as a file. All texts stand in the page already; nothing is built from foreign text.
(() => {
  const byId = (id) => document.getElementById(id);
  const sheet = JSON.parse(byId("sheet").textContent);
  const records = new Map([...document.querySelectorAll(".record")].map((e) => [e.dataset.key, e]));
  const originals = new Map([...records].map(([key, e]) => [key, texts(e)]));
  const buttons = [...document.querySelectorAll(".choice")];
  let rater = "";
  let order = [];
  let current = "";
  let state = null; // {labels: {key: {label, time}}, texts: {key: {name: text}}, at: key}
  let kept = true; // by the browser

  function texts(record) {
    return Object.fromEntries([...record.querySelectorAll("textarea")].map((area) => [area.name, area.value]));
  }

  // ---- what the browser keeps
  const place = () => `vlguard_jax ${sheet.id} ${rater}`;
  const LAST = `vlguard_jax ${sheet.id}`;

  function keep() {
    try {
      localStorage.setItem(place(), JSON.stringify(state));
      localStorage.setItem(LAST, rater);
      kept = true;
    } catch {
      kept = false;
      complain("This browser keeps nothing: save the file before you close the page.");
    }
  }

  function kept_state() {
    const fresh = { labels: {}, texts: {}, at: "" };
    let found = null;
    try {
      found = localStorage.getItem(place());
      return found === null ? fresh : { ...fresh, ...JSON.parse(found) };
    } catch {
      if (found !== null) localStorage.setItem(`${place()} unreadable`, found);
      complain("What this browser kept cannot be read: load the file that you saved last.");
      return fresh;
    }
  }

  function last_rater() {
    try {
      return localStorage.getItem(LAST) || "";
    } catch {
      return "";
    }
  }

  // ---- everyone's own order: Fisher and Yates, drawn by mulberry32 from FNV-1a of sheet and name
  function drawn(keys, seed) {
    let hash = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(seed)) hash = Math.imul(hash ^ byte, 0x01000193);
    const draw = () => {
      hash = (hash + 0x6d2b79f5) | 0;
      let t = Math.imul(hash ^ (hash >>> 15), 1 | hash);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const found = [...keys];
    for (let i = found.length - 1; i > 0; i--) {
      const j = Math.floor(draw() * (i + 1));
      [found[i], found[j]] = [found[j], found[i]];
    }
    return found;
  }

  // ---- showing
  const say = (text) => { byId("said").textContent = text; };
  const complain = (text) => { byId("trouble").textContent = text; };
  const done = () => order.filter((key) => state.labels[key]).length;
  const choice = (value) => sheet.choices.find((c) => c.value === value);
  const veiled = () => records.get(current).classList.contains("veiled");

  function veil(on) {
    const record = records.get(current);
    record.classList.toggle("veiled", on);
    record.querySelector(".veil").inert = on;
    if (byId("show")) byId("show").firstChild.data = on ? "Show" : "Hide";
  }

  function show(key, note = "") {
    if (current) records.get(current).hidden = true;
    current = key;
    const record = records.get(key);
    record.hidden = false;
    record.querySelector(".place").textContent = `${order.indexOf(key) + 1} of ${order.length}`;
    for (const area of record.querySelectorAll("textarea")) {
      area.value = (state.texts[key] || {})[area.name] ?? originals.get(key)[area.name];
    }
    veil(sheet.veil && !byId("unveil").checked);
    state.at = key;
    keep();
    draw();
    record.focus({ preventScroll: true });
    if (record.getBoundingClientRect().top < 0) byId("work").scrollIntoView({ block: "start" });
    say(note + told(key));
  }

  const told = (key) => (state.labels[key] ? `Judged: ${choice(state.labels[key].label).text}` : "");

  function draw() {
    const label = (state.labels[current] || {}).label;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.value === label));
    byId("progress").value = done();
    byId("count").textContent = `${done()} of ${order.length} done`;
    byId("who").textContent = rater;
  }

  function step(by) {
    const at = order.indexOf(current) + by;
    if (at < 0 || at >= order.length) say(by < 0 ? "This is the first one." : "This is the last one.");
    else show(order[at]);
  }

  function next_open(note = "") {
    const at = order.indexOf(current);
    const around = [...order.slice(at + 1), ...order.slice(0, at + 1)];
    const open = around.find((key) => !state.labels[key]);
    if (open) show(open, note);
    else say(`${note}All ${order.length} are done: save the file (s).`);
  }

  // ---- judging
  function choose(value) {
    complain("");
    if (veiled()) {
      say(`Show the ${sheet.noun} first (Space).`);
      return;
    }
    state.labels[current] = { label: value, time: new Date().toISOString() };
    keep();
    draw();
    const field = records.get(current).querySelector("textarea");
    if (choice(value).edits && field) {
      field.focus();
      say(`${choice(value).text}: change the text, then leave it with Esc.`);
    } else next_open(`${choice(value).text}. `);
  }

  function take_back() {
    delete state.labels[current];
    keep();
    draw();
    say("Taken back.");
  }

  // ---- the file
  function rows() {
    const keys = [...records.keys()].filter((key) => state.labels[key]);
    return keys.map((key) => ({
      key,
      label: state.labels[key].label,
      rater,
      time: state.labels[key].time,
      rows: String(keys.length), // by which a cut file is known
      ...originals.get(key),
      ...(state.texts[key] || {}),
      ...sheet.constants[key],
    }));
  }

  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  function save() {
    complain("");
    const found = rows();
    if (!found.length) {
      say("Nothing is judged yet, so there is nothing to save.");
      return;
    }
    const lines = [Object.keys(found[0]), ...found.map((row) => Object.values(row))];
    const text = sheet.format === "json"
      ? JSON.stringify({ schema: 1, sheet: sheet.id, rows: found }, null, 1) + "\n"
      : lines.map((line) => line.map(cell).join(",") + "\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: sheet.format === "json" ? "application/json" : "text/csv" }));
    link.download = `${sheet.file}-${rater.replace(/[^\p{L}\p{N}]+/gu, "-")}.${sheet.format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(`Saved ${link.download}: ${found.length} of ${order.length}.`);
  }

  function parsed(text) {
    // lines of cells as RFC 4180 has them
    const lines = [[]];
    const pattern = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/gy;
    while (pattern.lastIndex < text.length) {
      const at = pattern.lastIndex;
      const found = pattern.exec(text);
      if (!found) throw new Error(`broken table after character ${at}`);
      lines.at(-1).push(found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'));
      if (found[3] === "," && pattern.lastIndex === text.length) lines.at(-1).push("");
      else if (found[3] !== "," && found[3] !== "") lines.push([]);
    }
    const [heading, ...rest] = lines.filter((line) => line.length > 1 || (line[0] || "").trim());
    return (rest || []).map((line, i) => {
      if (line.length !== heading.length) throw new Error(`row ${i + 1} has ${line.length} cells under ${heading.length} columns: was it cut?`);
      return Object.fromEntries(heading.map((name, j) => [name, line[j]]));
    });
  }

  function checked(text) {
    const found = text.trimStart().startsWith("{") ? JSON.parse(text).rows : parsed(text.replace(/^\ufeff/, ""));
    if (!Array.isArray(found) || !found.length) throw new Error("no row in it: was it saved by this page?");
    const seen = new Set();
    found.forEach((row, i) => {
      const where = `row ${i + 1}`;
      for (const name of ["key", "label", "rater", "time", "rows", ...sheet.fields]) {
        if (typeof row[name] !== "string") throw new Error(`${where}: no ${name}: was it saved by this page?`);
      }
      if (!records.has(row.key)) throw new Error(`${where}: its ${sheet.noun} is not on this page, the file belongs to another one`);
      if (seen.has(row.key)) throw new Error(`${where}: its ${sheet.noun} comes twice`);
      seen.add(row.key);
      if (!choice(row.label)) throw new Error(`${where}: "${row.label.slice(0, 40)}" is none of ${sheet.choices.map((c) => c.value).join(", ")}`);
      if (row.rater !== rater) throw new Error(`it is the work of "${row.rater.slice(0, 80)}", and you are "${rater}"`);
    });
    const count = found[0].rows;
    if (Number(count) !== found.length) throw new Error(`${found.length} rows, and ${count} were saved: it was cut, or joined with another`);
    return found;
  }

  function load(name, text) {
    let found;
    try {
      found = checked(text);
    } catch (error) {
      complain(`${name}: ${error.message}. Nothing was loaded.`);
      return;
    }
    complain("");
    const newer = found.filter((row) => !(state.labels[row.key] && state.labels[row.key].time >= row.time));
    for (const row of newer) {
      state.labels[row.key] = { label: row.label, time: row.time };
      const changed = sheet.fields.filter((field) => row[field] !== originals.get(row.key)[field]);
      if (sheet.fields.length) state.texts[row.key] = Object.fromEntries(changed.map((field) => [field, row[field]]));
    }
    keep();
    show(current, `Loaded ${newer.length} of ${found.length}, the others are as new here. `);
  }

  // ---- names
  function begin(name) {
    rater = name.normalize("NFC").trim().replace(/\s+/g, " ").toLowerCase();
    if (!rater) return;
    complain("");
    state = kept_state();
    order = sheet.shuffle ? drawn(records.keys(), `${sheet.id} ${rater}`) : [...records.keys()];
    byId("start").hidden = true;
    byId("work").hidden = byId("choices").hidden = false;
    show(records.has(state.at) ? state.at : order[0]);
  }

  function leave() {
    records.get(current).hidden = true;
    current = "";
    byId("start").hidden = false;
    byId("work").hidden = byId("choices").hidden = true;
    byId("rater").value = "";
    byId("rater").focus();
  }

  // ---- what a person does
  const COMMANDS = {
    n: () => step(1), ArrowRight: () => step(1), p: () => step(-1), ArrowLeft: () => step(-1),
    o: () => next_open(), u: take_back, s: save,
    v: () => sheet.veil && veil(!veiled()), " ": () => sheet.veil && veil(!veiled()),
  };
  for (const one of sheet.choices) COMMANDS[one.stroke] = () => choose(one.value);

  document.addEventListener("keydown", (event) => {
    if (byId("work").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const tag = event.target.tagName;
    if (tag === "TEXTAREA") {
      if (event.key === "Escape") records.get(current).focus();
      return;
    }
    if (!byId("strokes").checked || (event.key === " " && ["BUTTON", "INPUT", "SUMMARY"].includes(tag))) return;
    const command = COMMANDS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (command) {
      event.preventDefault();
      command();
    }
  });
  document.addEventListener("input", (event) => {
    if (event.target.tagName !== "TEXTAREA") return;
    (state.texts[current] ??= {})[event.target.name] = event.target.value;
    keep();
  });
  addEventListener("storage", (event) => {
    if (!state || event.key !== place() || !event.newValue) return;
    state = { ...JSON.parse(event.newValue), at: current }; // the same person in another window
    draw();
  });
  addEventListener("beforeunload", (event) => { if (state && !kept && done()) event.preventDefault(); });
  byId("enter").addEventListener("submit", (event) => { event.preventDefault(); begin(byId("rater").value); });
  byId("load").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) load(file.name, await file.text());
    event.target.value = "";
  });
  for (const [id, command] of [["previous", "p"], ["next", "n"], ["open", "o"], ["undo", "u"], ["save", "s"], ["show", "v"]]) {
    byId(id)?.addEventListener("click", COMMANDS[command]);
  }
  for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.value));
  byId("unveil")?.addEventListener("change", (event) => veil(!event.target.checked));
  byId("leave").addEventListener("click", leave);
  if (last_rater()) begin(last_rater());
})();
