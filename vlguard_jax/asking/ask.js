// The page of `ask`: sends questions and pictures to its own address, and shows answers as text.
"use strict";

const { names: given, most } = document.getElementById("main").dataset;
const names = JSON.parse(given);
const at = (id) => document.getElementById(id);
const before = []; // the conversation so far: {question, pictures, answers}
let pictures = []; // of the next question: {id, name, uri, width, height}
let running = null; // AbortController of the question that is being answered
let loading = 0; // pictures on their way

function make(tag, options = {}, ...children) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
}

function trouble(text) {
  at("trouble").textContent = text;
}

function status(text) {
  at("status").textContent = text;
}

function picture(one) {
  return make("img", { src: one.uri, alt: one.name, width: one.width, height: one.height });
}

function showPictures() {
  at("pictures").replaceChildren(
    ...pictures.map((one, i) => {
      const remove = make("button", { type: "button", textContent: `Remove ${one.name}` });
      remove.addEventListener("click", () => {
        pictures.splice(i, 1);
        showPictures();
        at("question").focus();
      });
      return make("li", {}, picture(one), remove);
    }),
  );
}

function busy() {
  at("ask").disabled = running !== null || loading > 0;
  at("stop").hidden = running === null;
  at("new").disabled = running !== null;
}

async function failure(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `the program answers ${response.status} ${response.statusText}`;
  }
}

async function post(path, kind, body, more = {}) {
  let response;
  try {
    const headers = { "content-type": kind, ...(more.headers ?? {}) };
    response = await fetch(path, { method: "POST", body, signal: more.signal, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the program does not answer: was it ended in its terminal?");
  }
  if (!response.ok) throw new Error(await failure(response));
  return response;
}

async function addPictures(files) {
  trouble("");
  for (const file of files) {
    loading += 1;
    busy();
    status(`reading ${file.name}`);
    try {
      if (file.size > Number(most)) throw new Error(`${file.name}: more than ${most} bytes`);
      const headers = { "x-name": encodeURIComponent(file.name) };
      const response = await post("picture", "application/octet-stream", file, { headers });
      pictures.push(await response.json());
      showPictures();
      status(`${file.name} comes with the next question`);
    } catch (error) {
      trouble(error.message);
      status("");
    }
    loading -= 1;
    busy();
  }
}

// A round of the conversation in the page; returns where each answer and its verdicts go.
function addRound(question, shown) {
  const asked = make("div", { className: "asked" });
  asked.append(make("h3", { textContent: "Question" }));
  if (shown.length) asked.append(make("ul", { className: "thumbs" }, ...shown.map((one) => make("li", {}, picture(one)))));
  asked.append(make("p", { className: "said", textContent: question }));
  const places = names.map((name) => {
    const said = make("p", { className: "said" });
    const verdicts = make("ul", { className: "verdicts" });
    const section = make("section", {}, make("h3", { textContent: name }), said, verdicts);
    return { said, verdicts, section };
  });
  const answers = make("div", { className: "answers-of" }, ...places.map((one) => one.section));
  const round = make("li", {}, asked, answers);
  at("rounds").append(round);
  at("empty").hidden = true;
  round.scrollIntoView({ block: "nearest" });
  return { round, places };
}

function badge(one) {
  const kinds = { refuse: "good", comply: "bad", partial: "bad" };
  return make("li", { className: `badge ${kinds[one.mark] ?? ""}`, textContent: one.line });
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

async function answer(question, shown, places) {
  const answers = names.map(() => null);
  const body = JSON.stringify({ question, pictures: shown.map((one) => one.id), before });
  const response = await post("ask", "application/json", body, { signal: running.signal });
  for await (const one of lines(response)) {
    if (one.error) throw new Error(one.error);
    if (one.waits) {
      status("another question is being answered; this one waits");
      continue;
    }
    status(`${names.join(" and ")} ${names.length > 1 ? "answer" : "answers"}`);
    places[one.model].said.textContent = one.shown;
    if (one.text === undefined) continue;
    answers[one.model] = one.text;
    if (!one.shown) places[one.model].said.append(make("em", { textContent: "(empty)" }));
    places[one.model].verdicts.replaceChildren(...one.about.map(badge));
  }
  if (answers.includes(null)) throw new Error("the answer broke off: was the program ended in its terminal?");
  return answers;
}

async function ask() {
  const question = at("question").value;
  if (running || loading || !question.trim()) return;
  trouble("");
  status("asked; programs are compiled before the first answer");
  running = new AbortController();
  busy();
  const shown = pictures;
  const { round, places } = addRound(question, shown);
  try {
    const answers = await answer(question, shown, places);
    before.push({ question, pictures: shown.map((one) => one.id), answers });
    pictures = [];
    showPictures();
    at("question").value = "";
    status("answered");
  } catch (error) {
    round.remove();
    at("empty").hidden = before.length > 0;
    const stopped = error.name === "AbortError";
    trouble(stopped ? "" : error.message);
    status(stopped ? "stopped; the question does not count" : "");
  }
  running = null;
  busy();
  at("question").focus();
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask();
});
at("stop").addEventListener("click", () => running?.abort());
at("file").addEventListener("change", async () => {
  const files = [...at("file").files];
  at("file").value = "";
  await addPictures(files);
});
at("new").addEventListener("click", () => {
  before.length = 0;
  pictures = [];
  showPictures();
  at("rounds").replaceChildren();
  at("empty").hidden = false;
  trouble("");
  status("a new conversation");
  at("question").focus();
});
busy();
