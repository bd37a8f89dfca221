// What a learner went through, drawn: its course by inner step, or the map of its embedding. Plain SVG.

import { colour, percent } from "./bars.js";

const NS = "http://www.w3.org/2000/svg";

function add(parent, name, attributes, text) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function sheet(place, width, height, said) {
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", said);
  place.append(svg);
  return svg;
}

const brief = (label) => (label.length > 16 ? `${label.slice(0, 15)}…` : label);

/**
 * Lines by inner step.
 *
 * @param lines { label, values, colour, dashed } of each.
 * @param high the value at the top.
 * @param tell a value in words.
 */
function chart(place, title, steps, lines, high, tell, said) {
  const [W, H, left, right, top, bottom] = [460, 180, 52, 120, 26, 32];
  const svg = sheet(place, W, H, said);
  const last = Math.max(1, steps.at(-1));
  const x = (step) => left + ((W - left - right) * step) / last;
  const y = (value) => H - bottom - ((H - top - bottom) * Math.min(value, high)) / high;
  add(svg, "text", { x: left, y: 14, class: "title" }, title);
  for (const share of [0, 0.5, 1]) {
    const at = y(share * high);
    add(svg, "line", { x1: left, x2: W - right, y1: at, y2: at, class: "grid" });
    add(svg, "text", { x: left - 8, y: at + 4, class: "tick", "text-anchor": "end" }, tell(share * high));
  }
  const every = Math.ceil(last / 5);
  for (let step = 0; step <= last; step += every) {
    add(svg, "text", { x: x(step), y: H - 14, class: "tick", "text-anchor": "middle" }, step);
  }
  add(svg, "text", { x: W - right, y: H - 1, class: "tick", "text-anchor": "end" }, "inner steps");
  const ends = [];
  for (const line of lines) {
    const points = line.values.map((value, i) => `${x(steps[i]).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    const dash = line.dashed ? { "stroke-dasharray": "5 4" } : {};
    add(svg, "polyline", { points, fill: "none", stroke: line.colour, "stroke-width": 2.2, ...dash });
    ends.push({ at: y(line.values.at(-1)), line });
  }
  ends.sort((a, b) => a.at - b.at);
  let free = top - 8;
  for (const { at, line } of ends) {
    free = Math.max(at, free + 13);
    if (free > H - 4) break;
    add(svg, "line", { x1: W - right + 6, x2: W - right + 16, y1: free, y2: free, stroke: line.colour, "stroke-width": 3 });
    add(svg, "text", { x: W - right + 20, y: free + 4, class: "tick" }, brief(line.label));
  }
}

/** The course of an inner loop; of the first of the pictures, if any, what it was taken for. */
function steps(place, found, labels) {
  const at = found.map(({ step }) => step);
  const accuracy = found.map((step) => step.accuracy);
  const loss = found.map((step) => step.loss);
  const [first, last] = [found[0], found.at(-1)];
  const top = Math.max(...loss, 0.1);
  const said =
    `Accuracy on the examples goes from ${percent(first.accuracy)} to ${percent(last.accuracy)} in ${last.step} inner steps, ` +
    `their loss from ${first.loss.toFixed(2)} to ${last.loss.toFixed(2)}`;
  const lines = [{ label: "accuracy", values: accuracy, colour: "var(--accent)" }];
  chart(place, "Accuracy on your examples", at, lines, 1, percent, said);
  const second = [{ label: "loss", values: loss, colour: "var(--bad)" }];
  chart(place, "Loss on your examples", at, second, top, (v) => v.toFixed(top < 1 ? 2 : 1), said);
  if (first.probabilities.length) {
    const each = labels.flatMap((label, k) =>
      Object.hasOwn(first.probabilities[0], label) && labels.indexOf(label) === k // not that of a card without examples
        ? [{ label, values: found.map(({ probabilities: [p] }) => p[label]), colour: colour(k) }]
        : [],
    );
    const best = each.reduce((a, b) => (b.values.at(-1) > a.values.at(-1) ? b : a));
    chart(place, "What it takes the drawing for", at, each, 1, percent, `In the end the drawing is taken for ${best.label}`);
  }
  return (
    `Before the first step it knows nothing of your classes. In ${last.step} step${last.step === 1 ? "" : "s"} on your examples ` +
    `their loss goes from ${first.loss.toFixed(2)} to ${last.loss.toFixed(2)}: it was meta-trained to get far in few.`
  );
}

const overlap = (a, b) =>
  Math.max(0, Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x)) * Math.max(0, Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y));

/** Where words go beside a spot: below it, above, right or left, wherever least is in their way. */
function beside([x, y], words, taken, width) {
  const [w, h, off] = [9 * words.length, 15, 11];
  const places = [[x - w / 2, y + off], [x - w / 2, y - off - h], [x + off, y - h / 2], [x - off - w, y - h / 2]].map(
    ([left, top]) => ({ x: Math.min(Math.max(left, 0), width - w), y: top, w, h }),
  );
  const covered = places.map((place) => taken.reduce((sum, other) => sum + overlap(place, other), 0));
  return places[covered.indexOf(Math.min(...covered))];
}

/** The plane of an embedding: examples, class means, the drawing if there is one, and queries of known classes. */
function map(place, found, labels, classes) {
  const [W, most, edge] = [460, 360, 34];
  const every = [...found.examples, ...found.means, ...found.queries];
  const [xs, ys] = [every.map((p) => p.x), every.map((p) => p.y)];
  const [cx, cy] = [(Math.min(...xs) + Math.max(...xs)) / 2, (Math.min(...ys) + Math.max(...ys)) / 2];
  const [wide, high] = [Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys)];
  const spread = Math.max(wide / (W - 2 * edge), high / (most - 2 * edge), 1e-9);
  const H = Math.max(high / spread, 120) + 2 * edge;
  const spot = ({ x, y }) => [W / 2 + (x - cx) / spread, H / 2 - (y - cy) / spread];
  const tint = ({ label }) => colour(labels.indexOf(label));
  const svg = sheet(place, W, H, `A map of ${found.examples.length} examples of ${found.means.length} classes`);
  for (const point of found.examples) {
    const mean = found.means.find(({ label }) => label === point.label);
    const [[x1, y1], [x2, y2]] = [spot(point), spot(mean)];
    add(svg, "line", { x1, y1, x2, y2, stroke: tint(point), "stroke-opacity": 0.45 });
    add(svg, "circle", { cx: x1, cy: y1, r: 5, fill: tint(point), "fill-opacity": 0.55 });
  }
  const [drawing, rest] = found.queries.length > classes.length ? [found.queries[0], found.queries.slice(1)] : [null, found.queries];
  rest.forEach((point, i) => {
    const [x, y] = spot(point);
    add(svg, "circle", { cx: x, cy: y, r: 3.5, stroke: colour(classes[i]), class: "query" });
  });
  for (const mean of found.means) {
    const [x, y] = spot(mean);
    const points = [[x, y - 8], [x + 8, y], [x, y + 8], [x - 8, y]].map((p) => p.join(",")).join(" ");
    add(svg, "polygon", { points, fill: tint(mean), class: "mean" });
  }
  const taken = found.means.map(spot).map(([x, y]) => ({ x: x - 8, y: y - 8, w: 16, h: 16 }));
  const name = (at, words) => {
    const box = beside(at, words, taken, W);
    taken.push(box);
    add(svg, "text", { x: box.x + box.w / 2, y: box.y + 12, class: "name", "text-anchor": "middle" }, words);
  };
  // The drawing moves while one draws: the names of classes do not make way for it.
  for (const mean of found.means) name(spot(mean), brief(mean.label));
  if (drawing) {
    const [x, y] = spot(drawing);
    for (const mean of found.means) {
      const [x2, y2] = spot(mean);
      add(svg, "line", { x1: x, y1: y, x2, y2, class: "reach" });
    }
    add(svg, "circle", { cx: x, cy: y, r: 9, class: "drawing" });
    name([x, y], "drawing");
  }
  return (
    `Your pictures as the net sees them: circles are examples, diamonds the mean of each class, its prototype. ` +
    `${rest.length ? "Rings are the queries, in the colours of what they are. " : ""}A drawing belongs to the class that it lies near to. This plane shows ${percent(found.shown)} of how the examples differ.`
  );
}

/**
 * Draw what is inside.
 *
 * @param place the element.
 * @param found what the server tells.
 * @param labels of the cards, in the order of their colours.
 * @param classes of the pictures after the drawing, as places among these labels.
 * @returns what is to be seen, in words.
 */
export function figure(place, found, labels, classes) {
  const whole = document.createElement("div");
  const words = found.kind === "steps" ? steps(whole, found.steps, labels) : map(whole, found.map, labels, classes);
  place.replaceChildren(...whole.children);
  return words;
}
