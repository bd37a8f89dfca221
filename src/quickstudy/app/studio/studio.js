// The page: cards of classes on one side, a sheet to test on the other, and a classifier between that is made anew whenever
// the examples change. Below, what happens inside, and what becomes of the same examples without meta-learning.

import { ask, file, newest, of, remove } from "./api.js";
import { bars, colour, percent } from "./bars.js";
import { Card, FEWEST, MOST } from "./cards.js";
import { figure } from "./figures.js";
import { give, keep, kept, opened, written } from "./session.js";
import { STYLES, Surface, read } from "./surface.js";

const at = (id) => document.getElementById(id);
const USUAL = 3; // classes of OpenAI's Reptile page
const cards = [];
let runs = [];
let classifier = null; // on the server: { id, classes }, the examples that it was shown and the order of its classes' cards
let given = null; // a picture on the test pad that was not drawn there
let queries = null; // of a random task: { label, image }, the labels held back
let before = null; // the session that a random task took the place of

// ---------------------------------------------------------------------------------------------- what is said

const READ = 10_000; // milliseconds that a problem stays of what nobody tries again by themselves
const UNDO = 20_000; // and that what was deleted can be had again
let trouble = null; // what the problem that is shown is of
let reading;

function problem(text, topic) {
  trouble = topic;
  at("problem").textContent = text;
  at("problem").hidden = !text;
}

/** Do what may fail: its problem is shown until what it is of works again. */
async function attempt(work, topic = "asked") {
  try {
    await work();
    if (trouble === topic) problem("", null);
  } catch (error) {
    problem(error.message, topic);
    clearTimeout(reading);
    if (topic === "asked") reading = setTimeout(() => trouble === topic && problem("", null), READ);
  }
}

/** Say what was done, with a button that undoes it, until something else is done. */
function offer(said, undo) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Undo";
  button.addEventListener("click", () => {
    at("undone").replaceChildren();
    undo();
  });
  at("undone").replaceChildren(said, button);
  setTimeout(() => button.parentNode && !button.matches(":focus") && at("undone").replaceChildren(), UNDO);
}

// ---------------------------------------------------------------------------------------------- the classes

function addCard(name) {
  const card = new Card(name, { changed: () => (twins(), learn()), deleted, attempt, offer });
  card.surface.style = style();
  card.surface.show();
  cards.push(card);
  at("cards").append(card.element);
  counted();
  return card;
}

function deleted(card) {
  const k = cards.indexOf(card);
  removeCard(card);
  counted();
  learn();
  at("add-class").focus();
  if (!card.pictures.length) return;
  offer(`“${card.input.value}” deleted.`, () => {
    cards.splice(k, 0, card);
    at("cards").insertBefore(card.element, at("cards").children[k] ?? null);
    counted();
    learn();
  });
}

function removeCard(card) {
  cards.splice(cards.indexOf(card), 1);
  card.element.remove();
}

function counted() {
  const most = Math.min(MOST, run()?.most_classes ?? MOST);
  at("add-class").disabled = cards.length >= most;
  at("add-class").textContent = cards.length < most ? "Add a class" : most < MOST ? `This learner tells ${most} classes apart at most` : `${most} classes are the most here`;
  cards.forEach((card, k) => {
    card.place = k;
    card.find(".delete").disabled = cards.length <= FEWEST;
  });
  twins();
}

/** Say of cards of one name that they are one class. */
function twins() {
  const names = labels();
  cards.forEach((card, k) => (card.twin = names.some((name, other) => name === names[k] && other !== k)));
}

const label = (card) => card.input.value.trim() || `Class ${cards.indexOf(card) + 1}`;
const labels = () => cards.map(label); // of cards of one name the first has the colour of their class

/** Every example of every class that has a name and one. */
const examples = () => cards.flatMap((card) => card.pictures.map((image) => ({ label: label(card), image })));

// ---------------------------------------------------------------------------------------------- learning

const answering = newest((is) => at("bars").setAttribute("aria-busy", is));
const learn = answering(() => attempt(adapt, "learning"), 120);
const look = answering(() => attempt(predict, "answer"), 30);
const score = answering(() => attempt(judge, "score"), 30);
const explaining = newest((is) => at("figure").setAttribute("aria-busy", is));
const explain = explaining(() => attempt(inside, "inside"), 150);
const comparing = newest((is) => at("controls").setAttribute("aria-busy", is));
const compare = comparing(() => attempt(beside, "beside"), 600);

const forget = (old) => old && remove(`classifiers/${old.id}`);

async function adapt() {
  const shown = examples();
  const old = classifier;
  const classes = new Set(shown.map(({ label }) => label));
  const surplus = classes.size - (run().most_classes ?? MOST);
  at("download").disabled = true;
  if (classes.size < FEWEST || surplus > 0) {
    classifier = null;
    forget(old);
    bars(at("bars"), []);
    at("verdict").textContent =
      surplus > 0
        ? `This learner tells ${classes.size - surplus} classes apart at most: delete ${surplus}, or choose another learner.`
        : "Show examples of two classes, and this begins to answer.";
    explain();
    compare();
  } else {
    const options = { transductive: at("transductive").checked };
    if (run().steps !== null) options.steps = Number(at("steps").value);
    const order = labels();
    try {
      classifier = await ask("POST", "classifiers", { run: run().name, examples: shown, options });
    } catch (error) {
      classifier = null; // the one of before is of other examples
      look();
      throw error;
    } finally {
      forget(old);
    }
    Object.assign(classifier, { shown, order });
    at("download").disabled = false;
    look();
    score();
  }
}

/** What is on the test pad; null for nothing. */
const tested = () => given ?? (pad.empty ? null : pad.picture());

/** What a classifier says of pictures; null where it was forgotten, and is made again. */
async function says(asked, images) {
  try {
    return (await of(`classifiers/${asked.id}`, "POST", "predict", { images })).predictions;
  } catch (error) {
    if (error.status !== 404) throw error;
    if (asked === classifier) learn(); // it was forgotten, or another has taken its place
    return null;
  }
}

/** Rows of bars, in the order of the cards. */
const rows = (probabilities) =>
  labels().flatMap((name, k, all) => (Object.hasOwn(probabilities, name) && all.indexOf(name) === k ? [[name, probabilities[name], colour(k)]] : []));

async function predict() {
  const picture = tested();
  if (!classifier || !picture) {
    bars(at("bars"), rows(Object.fromEntries(classifier?.classes.map(({ label }) => [label, 0]) ?? [])));
    if (classifier) at("verdict").textContent = "";
  } else {
    const found = await says(classifier, [picture]);
    if (!found) return;
    const [{ label, probabilities, uncertainty }] = found;
    bars(at("bars"), rows(probabilities), label);
    const sure = uncertainty < 0.25 ? "sure" : uncertainty < 0.6 ? "fairly sure" : uncertainty < 0.85 ? "unsure" : "guessing";
    at("verdict").textContent = `${label}: ${percent(probabilities[label])}, ${sure}`;
  }
  explain();
  compare();
}

// ---------------------------------------------------------------------------------------------- what it learned

async function inside() {
  const asked = classifier;
  at("inside").hidden = run().shows === null;
  if (!asked || run().shows === null) {
    at("figure").replaceChildren();
    at("told").textContent = "Here you see how it learns your classes, as soon as there are examples of two.";
    return;
  }
  const picture = tested();
  const others = run().shows === "map" && queries ? queries : [];
  const images = [...(picture ? [picture] : []), ...others.map(({ image }) => image)];
  try {
    const found = await of(`classifiers/${asked.id}`, "POST", "inside", { images });
    const classes = others.map(({ label: truth }) => cards.findIndex((card) => card.origin === truth));
    if (asked === classifier) at("told").textContent = figure(at("figure"), found, asked.order, classes);
  } catch (error) {
    if (error.status !== 404) throw error; // it was forgotten, and is made again for the answer
  }
}

// ---------------------------------------------------------------------------------------------- without meta-learning

const NAMES = {
  scratch: ["Trained from scratch", "A new network that has seen nothing but your examples."],
  "pretrain-finetune": ["Pretrained, fine-tuned", "A network that learned to tell the same data's classes apart, then your examples."],
};
const controls = new Map(); // name → { id, shown, seconds } on the server
let own = null; // of the queries of a random task, those that the meta-learned one gets right

async function beside() {
  const asked = classifier;
  const wanted = at("compare").checked ? run().controls : [];
  at("beside").hidden = run().controls.length === 0;
  at("missing").hidden = run().controls.includes("pretrain-finetune");
  for (const [name, control] of controls) {
    if (control.shown !== asked?.shown || !wanted.includes(name)) {
      controls.delete(name);
      forget(control);
    }
  }
  [...at("controls").children].forEach((element) => wanted.includes(element.dataset.name) || element.remove());
  for (const name of wanted) {
    const element = controlElement(name);
    if (!asked) {
      bars(element.querySelector("ol"), []);
      element.querySelector(".said").textContent = "";
      element.querySelector(".score").textContent = "";
      continue;
    }
    if (!controls.has(name)) {
      element.querySelector(".said").textContent = "learning…";
      const begun = performance.now();
      const made = await ask("POST", "classifiers", { run: run().name, examples: asked.shown, options: { control: name } });
      controls.set(name, { ...made, shown: asked.shown, seconds: (performance.now() - begun) / 1000 });
    }
    await answer(name, element);
    if (asked !== classifier) return; // this is asked for again
  }
}

function controlElement(name) {
  const known = [...at("controls").children].find((element) => element.dataset.name === name);
  if (known) return known;
  const element = at("control").content.firstElementChild.cloneNode(true);
  element.dataset.name = name;
  element.querySelector("h3").textContent = NAMES[name]?.[0] ?? name;
  element.querySelector(".what").textContent = NAMES[name]?.[1] ?? "";
  at("controls").append(element);
  return element;
}

/** What a control says of the test drawing, and how many of a task's queries it gets right. */
async function answer(name, element) {
  const control = controls.get(name);
  const picture = tested();
  const images = [...(picture ? [picture] : []), ...(queries ?? []).map(({ image }) => image)];
  const found = images.length ? await says(control, images) : [];
  if (!found) return void controls.delete(name);
  const [drawing, rest] = picture ? [found[0], found.slice(1)] : [null, found];
  const none = Object.fromEntries(control.classes.map(({ label }) => [label, 0]));
  bars(element.querySelector("ol"), rows(drawing?.probabilities ?? none), drawing?.label);
  const words = [`learned in ${control.seconds.toFixed(1)} s`];
  if (drawing) words.unshift(`${drawing.label}: ${percent(drawing.probabilities[drawing.label])}`);
  element.querySelector(".said").textContent = words.join(", ");
  element.querySelector(".score").textContent = queries ? `${right(rest)} of ${queries.length} right; meta-learned ${own ?? "…"}` : "";
}

// ---------------------------------------------------------------------------------------------- a random task

const origin = (name) => cards.find((card) => label(card) === name)?.origin;
const right = (found) => found.filter((one, i) => origin(one.label) === queries[i].label).length;

async function begin() {
  const [way, shot] = [at("way"), at("shot")].map((input) => Math.round(Number(input.value)));
  const most = Math.min(MOST, run().most_classes ?? MOST);
  if (!(way >= FEWEST && way <= most)) throw new Error(`A task may have ${FEWEST} to ${most} classes here.`);
  if (!(shot >= 1 && shot <= 20)) throw new Error("A task may have 1 to 20 examples a class.");
  const query = Math.max(1, Math.min(5, Math.floor(40 / way)));
  const task = await ask("POST", "tasks", { run: run().name, way, shot, query });
  const classes = [...new Set(task.examples.map(({ label }) => label))];
  before ??= session();
  restore({
    ...session(),
    classes: classes.map((name) => ({
      name,
      origin: name,
      strokes: [],
      examples: task.examples.filter(({ label }) => label === name).map(({ image }) => image),
    })),
    pad: [],
    given: null,
    queries: task.queries,
  });
}

function showQueries() {
  at("task").hidden = queries === null;
  at("back").hidden = before === null;
  at("score").textContent = "";
  at("queries").replaceChildren(
    ...(queries ?? []).map(({ image }, i) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      const picture = document.createElement("img");
      picture.src = image;
      picture.alt = "";
      button.type = "button";
      button.setAttribute("aria-label", `Query ${i + 1}`);
      button.append(picture);
      button.addEventListener("click", () => attempt(() => put(image)));
      item.append(button);
      return item;
    }),
  );
}

/** The queries of a random task, answered, and only then compared with what was held back. */
async function judge() {
  own = null;
  if (!classifier || !queries) return;
  const asked = queries;
  const found = await says(classifier, asked.map(({ image }) => image));
  if (!found || asked !== queries) return;
  own = right(found);
  found.forEach(({ label }, i) => {
    const good = origin(label) === asked[i].label;
    const button = at("queries").children[i].firstChild;
    button.className = good ? "right" : "wrong";
    button.setAttribute("aria-label", `Query ${i + 1}: taken for ${label}, ${good ? "right" : `but it is ${asked[i].label}`}`);
    button.title = good ? label : `taken for ${label}, but it is ${asked[i].label}`;
  });
  at("score").textContent = `${own} of ${found.length} right`;
  compare();
}

// ---------------------------------------------------------------------------------------------- sessions

const session = () => ({
  run: run().name,
  steps: run().steps === null ? null : Number(at("steps").value),
  transductive: at("transductive").checked,
  classes: cards.map((card) => ({
    name: card.input.value,
    origin: card.origin,
    strokes: card.surface.strokes,
    examples: card.kept.map(({ picture }) => picture),
  })),
  pad: pad.strokes,
  given,
  queries,
});

function restore(found) {
  const known = runs.some(({ name }) => name === found.run);
  if (known) at("run").value = found.run;
  chosen();
  if (known && run().steps !== null) at("steps").value = found.steps ?? run().steps;
  if (known && run().transductive) at("transductive").checked = found.transductive;
  while (cards.length) removeCard(cards[0]);
  for (const { name, origin, strokes, examples } of found.classes.slice(0, MOST)) {
    const card = addCard(name);
    card.origin = origin;
    examples.forEach((picture) => card.store(picture));
    card.surface.strokes = strokes;
    card.surface.show();
  }
  while (cards.length < (found.classes.length ? FEWEST : USUAL)) addCard(`Class ${cards.length + 1}`);
  pad.strokes = found.pad;
  pad.show();
  given = null;
  queries = found.queries;
  showQueries();
  learn();
  if (found.given) attempt(() => put(found.given));
}

at("random").addEventListener("click", async ({ currentTarget: button }) => {
  if (button.ariaBusy) return; // the first task waits for the data to be read
  button.ariaBusy = "true";
  at("fetching").textContent = "Finding a task…";
  await attempt(begin);
  button.ariaBusy = null;
  at("fetching").textContent = "";
});
at("back").addEventListener("click", () => {
  const mine = before;
  before = null;
  restore(mine);
});
at("anew").addEventListener("click", () => {
  const [mine, theirs] = [session(), before];
  before = null;
  restore({ ...mine, classes: [], pad: [], given: null, queries: null });
  offer("All classes deleted.", () => {
    before = theirs;
    restore(mine);
  });
});
addEventListener("pagehide", () => run() && keep(before ?? session()));
document.addEventListener("visibilitychange", () => document.hidden && run() && keep(before ?? session()));
at("save").addEventListener("click", () => give(written(session()), "quickstudy-session.json"));
at("open").addEventListener("change", async (event) => {
  const [chosenFile] = event.target.files;
  event.target.value = "";
  if (!chosenFile) return;
  await attempt(async () => {
    const found = await opened(chosenFile);
    before = null;
    restore(found);
  });
});
at("download").addEventListener("click", () =>
  attempt(async () => give(await file(`classifiers/${classifier.id}/file`), "classifier.safetensors")),
);

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
  // What was drawn stays; a learner of fewer classes does not answer then.
  while (cards.length > (most ?? MOST) && !cards.at(-1).pictures.length) removeCard(cards.at(-1));
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
  const [chosenFile] = event.target.files;
  event.target.value = "";
  if (chosenFile) await attempt(async () => put(await read(chosenFile)));
});
const padSection = document.querySelector(".pad");
padSection.addEventListener("dragover", (event) => event.preventDefault());
padSection.addEventListener("drop", async (event) => {
  event.preventDefault();
  const [dropped] = event.dataTransfer.files;
  if (dropped) await attempt(async () => put(await read(dropped)));
});

/** Put a picture on the test pad. */
async function put(picture) {
  const image = new Image();
  image.src = picture;
  await image.decode();
  pad.put(image);
  given = picture;
  look();
}

at("run").addEventListener("change", () => {
  queries = null;
  showQueries();
  chosen();
});
at("steps").addEventListener("change", () => {
  const asked = Math.min(Math.max(Math.round(Number(at("steps").value)), 0), Number(at("steps").max));
  at("steps").value = at("steps").value === "" ? run().steps : asked; // as the learner was trained, where nothing is said
  learn();
});
at("transductive").addEventListener("change", learn);
at("compare").addEventListener("change", compare);
at("add-class").addEventListener("click", () => addCard(`Class ${cards.length + 1}`).input.select());

await attempt(async () => {
  ({ runs } = await ask("GET", "runs"));
  for (const { name, learner } of runs) at("run").add(new Option(name === learner ? name : `${name} (${learner})`, name));
  restore(kept() ?? { run: run().name, classes: [], pad: [], given: null, queries: null });
});
document.body.dataset.ready = "true";
