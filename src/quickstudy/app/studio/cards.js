// The cards of the classes: a name, a sheet to draw on, and the examples that are kept.

import { colour } from "./bars.js";
import { Surface, read } from "./surface.js";

export const FEWEST = 2;
export const MOST = 20;
const template = document.getElementById("card");

export class Card {
  /**
   * @param name of the class.
   * @param on what is told: `changed()` of its examples or name, `deleted(card)`, `attempt(work)` of what may fail,
   *   `offer(said, undo)` of what can be undone.
   */
  constructor(name, on) {
    this.on = on;
    this.kept = []; // pictures, as data: addresses
    this.stored = 0; // how many there have been
    this.origin = null; // the class that it is of, in a random task
    this.element = template.content.firstElementChild.cloneNode(true);
    this.canvas = this.find("canvas");
    this.surface = new Surface(this.canvas, on.changed);
    this.input = this.find(".name input");
    this.input.addEventListener("input", () => this.named());
    this.find(".keep").addEventListener("click", () => this.keep());
    this.find(".undo").addEventListener("click", () => this.surface.undo());
    this.find(".clear").addEventListener("click", () => this.surface.clear());
    this.find(".delete").addEventListener("click", () => on.deleted(this));
    this.find("input[type=file]").addEventListener("change", (event) => {
      this.take([...event.target.files]);
      event.target.value = "";
    });
    for (const kind of ["dragenter", "dragover"]) {
      this.element.addEventListener(kind, (event) => {
        event.preventDefault();
        this.element.classList.add("dropping");
      });
    }
    this.element.addEventListener("dragleave", () => this.element.classList.remove("dropping"));
    this.element.addEventListener("drop", (event) => {
      event.preventDefault();
      this.element.classList.remove("dropping");
      this.take([...event.dataTransfer.files]);
    });
    this.input.value = name;
    this.named();
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  named() {
    this.canvas.setAttribute("aria-label", `Drawing of ${this.input.value}: draw here, with arrow keys and space too, or choose pictures below`);
    this.on.changed();
  }

  /** Whether another card has the same name. */
  set twin(is) {
    this.find(".twin").hidden = !is;
  }

  /** Its place among the cards, which gives it its colour. */
  set place(k) {
    this.find(".dot").style.background = colour(k);
  }

  /** The drawing becomes one of the kept examples. */
  keep() {
    if (this.surface.empty) return;
    this.store(this.surface.picture());
    this.surface.clear();
  }

  take(files) {
    return this.on.attempt(async () => {
      try {
        for (const file of files) this.store(await read(file));
      } finally {
        this.on.changed(); // also of those before one that is no picture
      }
    });
  }

  store(picture) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const image = document.createElement("img");
    const entry = { picture };
    image.src = picture;
    image.alt = "";
    button.type = "button";
    button.setAttribute("aria-label", `Delete example ${++this.stored}`);
    button.append(image);
    button.addEventListener("click", () => {
      const k = this.kept.indexOf(entry);
      this.kept.splice(k, 1);
      item.remove();
      this.haunt();
      this.on.changed();
      this.on.offer("Example deleted.", () => {
        this.kept.splice(k, 0, entry);
        this.find(".examples").insertBefore(item, this.find(".examples").children[k] ?? null);
        this.haunt();
        this.on.changed();
      });
    });
    item.append(button);
    this.find(".examples").append(item);
    this.kept.push(entry);
    image.addEventListener("load", () => this.haunt());
  }

  /** The sheet, while it is empty, faintly shows the example that was kept last. */
  haunt() {
    this.surface.ghost = this.find(".examples li:last-child img");
  }

  /** Every example, kept or on the sheet. */
  get pictures() {
    const kept = this.kept.map(({ picture }) => picture);
    return this.surface.empty ? kept : [...kept, this.surface.picture()];
  }
}
