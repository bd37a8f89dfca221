// The page: cards of classes on one side, a sheet to test on the other, and a classifier between that is made anew whenever
// the examples change.

import { ask, newest } from "./api.js";
import { STYLES, Surface, read } from "./surface.js";

const FEWEST = 2;
const MOST = 20;
const at = (id) => document.getElementById(id);
const cards = [];
let runs = [];
let classifier = null; // { id, labels } on the server
let given = null; // a picture on the test pad that was not drawn there

// ---------------------------------------------------------------------------------------------- what is said

function problem(text) {
  at("problem").textContent = text ?? "";
  at("problem").hidden = !text;
}

async function attempt(work) {
  try {
    await work();
    problem(null);
  } catch (error) {
    problem(error.message);
  }
}

// ---------------------------------------------------------------------------------------------- the classes

function addCard(name) {
  const element = at("card").content.firstElementChild.cloneNode(true);
  const find = (selector) => element.querySelector(selector);
  const canvas = find("canvas");
  const card = { element, kept: [], input: find(".name input"), surface: new Surface(canvas, learn) };
  card.surface.style = style();
  card.surface.show();
  card.input.value = name;
  card.input.addEventListener("input", learn);
  const described = () => canvas.setAttribute("aria-label", `Drawing of ${card.input.value}: draw here, or choose pictures below`);
  card.input.addEventListener("input", described);
  described();
  find(".keep").addEventListener("click", () => keep(card));
  find(".undo").addEventListener("click", () => card.surface.undo());
  find(".clear").addEventListener("click", () => card.surface.clear());
  find(".delete").addEventListener("click", () => {
    cards.splice(cards.indexOf(card), 1);
    element.remove();
    counted();
    learn();
    at("add-class").focus();
  });
  find("input[type=file]").addEventListener("change", (event) => {
    take(card, event.target.files);
    event.target.value = "";
  });
  for (const kind of ["dragenter", "dragover"]) {
    element.addEventListener(kind, (event) => {
      event.preventDefault();
      element.classList.add("dropping");
    });
  }
  element.addEventListener("dragleave", () => element.classList.remove("dropping"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("dropping");
    take(card, event.dataTransfer.files);
  });
  cards.push(card);
  at("cards").append(element);
  counted();
  return card;
}

function counted() {
  const most = Math.min(MOST, run()?.most_classes ?? MOST);
  at("add-class").disabled = cards.length >= most;
  at("add-class").textContent = cards.length >= most ? `This learner tells ${most} classes apart at most` : "Add a class";
  for (const { element } of cards) element.querySelector(".delete").disabled = cards.length <= FEWEST;
}

/** The drawing on a card becomes one of its kept examples. */
function keep(card) {
  if (card.surface.empty) return;
  store(card, card.surface.picture());
  card.surface.clear();
}

async function take(card, files) {
  await attempt(async () => {
    for (const file of files) store(card, await read(file));
    learn();
  });
}

function store(card, picture) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const image = document.createElement("img");
  const entry = { picture };
  image.src = picture;
  image.alt = "";
  button.type = "button";
  button.setAttribute("aria-label", `Delete example ${card.kept.length + 1}`);
  button.append(image);
  button.addEventListener("click", () => {
    card.kept.splice(card.kept.indexOf(entry), 1);
    item.remove();
    learn();
  });
  item.append(button);
  card.element.querySelector(".examples").append(item);
  card.kept.push(entry);
}

/** Every example of every class that has a name and one. */
function examples() {
  return cards.flatMap((card, i) => {
    const drawn = card.surface.empty ? [] : [card.surface.picture()];
    const label = card.input.value.trim() || `Class ${i + 1}`;
    return [...card.kept.map(({ picture }) => picture), ...drawn].map((image) => ({ label, image }));
  });
}

// ---------------------------------------------------------------------------------------------- learning

const busy = (is) => at("bars").setAttribute("aria-busy", is);
const learn = newest(() => attempt(adapt), 120, busy);
const look = newest(() => attempt(predict), 30, busy);

async function adapt() {
  const shown = examples();
  const before = classifier;
  const labels = new Set(shown.map(({ label }) => label));
  if (labels.size < FEWEST) {
    classifier = null;
    bars([]);
    at("verdict").textContent = "Show examples of two classes, and this begins to answer.";
  } else {
    const options = { transductive: at("transductive").checked };
    if (run().steps !== null && at("steps").value !== "") options.steps = Number(at("steps").value);
    classifier = await ask("POST", "classifiers", { run: run().name, examples: shown, options });
    look();
  }
  if (before) ask("DELETE", `classifiers/${before.id}`).catch(() => {});
}

async function predict() {
  const picture = given ?? (pad.empty ? null : pad.picture());
  if (!classifier || !picture) {
    bars(classifier ? classifier.classes.map(({ label }) => [label, 0]) : []);
    if (classifier) at("verdict").textContent = "";
    return;
  }
  const asked = classifier;
  try {
    const answer = await ask("POST", `classifiers/${asked.id}/predict`, { images: [picture] });
    const [{ label, probabilities, uncertainty }] = answer.predictions;
    bars(Object.entries(probabilities), label);
    const sure = uncertainty < 0.25 ? "sure" : uncertainty < 0.6 ? "fairly sure" : uncertainty < 0.85 ? "unsure" : "guessing";
    at("verdict").textContent = `${label}: ${percent(probabilities[label])}, ${sure}`;
  } catch (error) {
    if (error.status !== 404) throw error;
    if (asked === classifier) learn(); // it was forgotten, or another has taken its place
  }
}

const percent = (p) => `${Math.round(100 * p)} %`;

function bars(rows, best) {
  const list = at("bars");
  while (list.children.length > rows.length) list.lastChild.remove();
  while (list.children.length < rows.length) {
    const item = document.createElement("li");
    for (const name of ["label", "track", "value"]) {
      const part = document.createElement("span");
      part.className = name;
      item.append(part);
    }
    const fill = document.createElement("div");
    fill.className = "fill";
    item.querySelector(".track").append(fill);
    list.append(item);
  }
  rows.forEach(([label, p], i) => {
    const item = list.children[i];
    item.querySelector(".label").textContent = label;
    item.querySelector(".label").title = label;
    item.querySelector(".fill").style.transform = `scaleX(${p})`;
    item.querySelector(".value").textContent = best === undefined ? "" : percent(p);
    item.classList.toggle("best", label === best);
  });
}

// ---------------------------------------------------------------------------------------------- the learner

const run = () => runs.find(({ name }) => name === at("run").value);
const style = () => STYLES[run()?.data] ?? STYLES.usual;

function chosen() {
  const { learner, data, steps, transductive, most_classes: most } = run();
  at("steps-option").hidden = steps === null;
  at("steps").value = steps ?? "";
  at("transductive-option").hidden = !transductive;
  at("transductive").checked = false;
  const ways = most === null ? "any number of classes" : `up to ${most} classes`;
  at("about").textContent = `${learner}, meta-trained on ${data}: it has never seen your classes, and learns ${ways} from what you draw.`;
  for (const { surface } of [...cards, { surface: pad }]) {
    surface.style = style();
    surface.show();
  }
  while (cards.length > (most ?? MOST)) cards.pop().element.remove();
  counted();
  learn();
}

const pad = new Surface(at("pad"), () => {
  given = null;
  look();
});
at("pad-undo").addEventListener("click", () => pad.undo());
at("pad-clear").addEventListener("click", () => pad.clear());
at("pad-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) await attempt(() => show(file));
});
const padSection = document.querySelector(".pad");
padSection.addEventListener("dragover", (event) => event.preventDefault());
padSection.addEventListener("drop", async (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) await attempt(() => show(file));
});

/** Put a picture on the test pad. */
async function show(file) {
  const picture = await read(file);
  pad.clear();
  const image = new Image();
  image.src = picture;
  await image.decode();
  const { canvas } = pad;
  const scale = canvas.width / Math.max(image.width, image.height);
  const [w, h] = [image.width * scale, image.height * scale];
  canvas.getContext("2d").drawImage(image, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  given = picture;
  look();
}

at("run").addEventListener("change", chosen);
at("steps").addEventListener("change", learn);
at("transductive").addEventListener("change", learn);
at("add-class").addEventListener("click", () => addCard(`Class ${cards.length + 1}`).input.select());

await attempt(async () => {
  ({ runs } = await ask("GET", "runs"));
  for (const { name, learner } of runs) at("run").add(new Option(name === learner ? name : `${name} (${learner})`, name));
  for (const name of ["Class 1", "Class 2", "Class 3"]) addCard(name);
  chosen();
});
document.body.dataset.ready = "true";
