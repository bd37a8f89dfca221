// A session as a file, or kept in this tab: classes, drawings, pictures and choices, as JSON. What is opened is trusted no further than that.

import { MOST } from "./cards.js";

const VERSION = 1;
const STEPS = 200;
const LONGEST = 40_000_000;
const PICTURE = /^data:image\/(png|jpeg);base64,[A-Za-z0-9+/=]+$/;

/** Give the user a file. */
export function give(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const worded = (session) => JSON.stringify({ quickstudy: VERSION, ...session });
export const written = (session) => new Blob([worded(session)], { type: "application/json" });

const wrong = (name) => new Error(`${name} is no session of the studio.`);

const number = (v) => typeof v === "number" && Number.isFinite(v);
const text = (v) => typeof v === "string" && v.length <= 1000;
const list = (v, each, most) => Array.isArray(v) && v.length <= most && v.every(each);
const picture = (v) => typeof v === "string" && v.length < 4_000_000 && PICTURE.test(v);
const point = (v) => list(v, number, 2) && v.length === 2;
const strokes = (v) => list(v, (stroke) => list(stroke, point, 20_000) && stroke.length > 0, 2000);
const query = (v) => v !== null && typeof v === "object" && text(v.label) && picture(v.image);
const held = (v) =>
  v !== null && typeof v === "object" && text(v.name) && (v.origin === null || text(v.origin)) && strokes(v.strokes) && list(v.examples, picture, 1000);

/** A session from a file; an Error where it is none. */
export async function opened(file) {
  if (file.size > LONGEST) throw new Error(`${file.name} is larger than any session.`);
  return parsed(await file.text(), file.name);
}

const PLACE = "quickstudy-session";

/** Keep a session in this tab: what was drawn is there again when the page is. */
export function keep(session) {
  try {
    sessionStorage.setItem(PLACE, worded(session));
  } catch {
    sessionStorage.removeItem(PLACE); // there is no room for so many pictures
  }
}

/** The session that this tab kept; null where there is none. */
export function kept() {
  try {
    return parsed(sessionStorage.getItem(PLACE) ?? "", "it");
  } catch {
    return null;
  }
}

/** A session from text; an Error where it is none. */
function parsed(content, name) {
  let found;
  try {
    found = JSON.parse(content);
  } catch {
    throw wrong(name);
  }
  const right =
    found !== null &&
    typeof found === "object" &&
    found.quickstudy === VERSION &&
    text(found.run) &&
    (found.steps === null || (Number.isInteger(found.steps) && found.steps >= 0 && found.steps <= STEPS)) &&
    typeof found.transductive === "boolean" &&
    list(found.classes, held, MOST) &&
    strokes(found.pad) &&
    (found.given === null || picture(found.given)) &&
    (found.queries === null || list(found.queries, query, 1000));
  if (!right) throw wrong(name);
  return found;
}
