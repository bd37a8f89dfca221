// Bars of probability, one a class; and the colours that classes have everywhere on the page.

/** A colour for the class of this number: far from those of its neighbours, and readable by day and night. */
export const colour = (k) => `oklch(0.62 0.15 ${Math.round(40 + k * 137.5) % 360})`;

export const percent = (p) => `${Math.round(100 * p)} %`;

/**
 * @param list the element, an ol.
 * @param rows [label, probability, colour] of each class.
 * @param best the label that is the answer; undefined while there is none.
 */
export function bars(list, rows, best) {
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
  rows.forEach(([label, p, of], i) => {
    const item = list.children[i];
    item.querySelector(".label").textContent = label;
    item.querySelector(".label").title = label;
    item.querySelector(".fill").style.transform = `scaleX(${p})`;
    item.querySelector(".fill").style.backgroundColor = of;
    item.querySelector(".value").textContent = best === undefined ? "" : percent(p);
    item.classList.toggle("best", label === best);
  });
}
