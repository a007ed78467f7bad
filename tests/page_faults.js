// Finds faults in the layout of an open page: parts beside the window, overlaps, cut texts, tables without numbers.
// Evaluates to a function that returns a list of sentences.
(options) => {
  const SLACK = 1.5; // pixels, for rounding
  const faults = [];
  const page = document.documentElement;
  const width = page.clientWidth;
  const words = (element) => JSON.stringify(element.textContent.trim().replace(/\s+/g, " ").slice(0, 40));
  const isShown = (element) => element.getClientRects().length > 0 && getComputedStyle(element).visibility !== "hidden";

  if (page.scrollWidth > width + SLACK) faults.push(`the page is ${page.scrollWidth} pixels wide`);

  // ---- blocks

  const blocks = [...document.querySelectorAll("h1, h2, h3, p, li, pre, figcaption, figure, .controls, .table, img")];
  for (const block of blocks.filter(isShown)) {
    const box = block.getBoundingClientRect();
    if (box.left < -SLACK || box.right > width + SLACK) faults.push(`${block.tagName} ${words(block)} is beside the page`);
  }
  for (const parent of document.querySelectorAll("body, main, header, details, figure, .images")) {
    const children = [...parent.children].filter((child) => isShown(child) && getComputedStyle(child).display !== "inline");
    children.forEach((child, index) => {
      const next = children[index + 1];
      if (!next) return;
      const [one, other] = [child.getBoundingClientRect(), next.getBoundingClientRect()];
      const beside = other.left >= one.right - SLACK || one.left >= other.right - SLACK;
      if (!beside && one.bottom > other.top + SLACK && other.bottom > one.top + SLACK)
        faults.push(`${child.tagName} ${words(child)} overlaps ${next.tagName} ${words(next)}`);
    });
  }

  // ---- tables

  for (const box of document.querySelectorAll(".table")) {
    if (!isShown(box)) continue;
    const table = box.querySelector("table");
    const edge = box.getBoundingClientRect().right + SLACK;
    if (options.printed && table.getBoundingClientRect().right > edge)
      faults.push(`the table ${words(table.tHead)} is wider than the paper`);
    if (getComputedStyle(box).overflowX === "visible" && table.getBoundingClientRect().right > edge)
      faults.push(`the table ${words(table.tHead)} sticks out of its box`);
    for (const row of [...table.rows].slice(0, 3)) {
      const cells = [...row.cells].filter(isShown);
      for (const cell of cells) {
        const range = document.createRange();
        range.selectNodeContents(cell);
        const [text, own] = [range.getBoundingClientRect(), cell.getBoundingClientRect()];
        if (text.width > 0 && (text.right > own.right + SLACK || text.left < own.left - SLACK))
          faults.push(`${words(cell)} sticks out of its cell in the table ${words(table.tHead)}`);
      }
      const number = cells.find((cell) => cell.classList.contains("number"));
      if (number && number.getBoundingClientRect().right > edge)
        faults.push(`no number of the table ${words(table.tHead)} is visible without scrolling`);
    }
    // The first column stays where it is when the others are scrolled.
    const first = table.tBodies[0].rows[0]?.cells[0];
    if (!options.printed && first && box.scrollWidth > box.clientWidth + SLACK) {
      box.scrollLeft = 1e6;
      const moved = first.getBoundingClientRect().left - box.getBoundingClientRect().left;
      if (Math.abs(moved) > SLACK) faults.push(`the first column of ${words(table.tHead)} scrolls away`);
      box.scrollLeft = 0;
    }
  }

  // ---- figures

  // Corners of a text, which may be rotated, on the screen. Lines are higher than their letters.
  const corners = (text) => {
    const [box, matrix] = [text.getBBox(), text.getScreenCTM()];
    const inset = 0.2 * Math.min(box.height, box.width);
    const [left, right, top, bottom] = [box.x, box.x + box.width, box.y + inset, box.y + box.height - inset];
    return [[left, top], [right, top], [right, bottom], [left, bottom]].map(([x, y]) => {
      const point = new DOMPoint(x, y).matrixTransform(matrix);
      return [point.x, point.y];
    });
  };
  // Separating axes: two rectangles do not overlap if their shadows on the direction of a side do not.
  const overlap = (one, other) =>
    [one, other].every((shape) =>
      [0, 1].every((side) => {
        const [from, to] = [shape[side], shape[side + 1]];
        const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
        const shadow = (points) => points.map(([x, y]) => ((to[0] - from[0]) * x + (to[1] - from[1]) * y) / length);
        const [a, b] = [shadow(one), shadow(other)];
        return Math.min(Math.max(...a), Math.max(...b)) - Math.max(Math.min(...a), Math.min(...b)) > 1;
      }),
    );
  for (const plot of document.querySelectorAll(".plot > div")) {
    if (!isShown(plot)) continue;
    const name = JSON.stringify(plot.getAttribute("aria-label").slice(0, 40));
    if (plot.dataset.state !== "drawn") {
      faults.push(`the figure ${name} is not drawn`);
      continue;
    }
    const [own, frame] = [plot.getBoundingClientRect(), plot.parentElement];
    if (own.right > frame.getBoundingClientRect().right + SLACK && frame.scrollWidth <= frame.clientWidth)
      faults.push(`the figure ${name} is cut`);
    if (getComputedStyle(document.body).backgroundColor !== plot._fullLayout.paper_bgcolor.replace(/^#(..)(..)(..)$/, (_, ...hex) => `rgb(${hex.slice(0, 3).map((channel) => parseInt(channel, 16)).join(", ")})`))
      faults.push(`the figure ${name} has another background than the page`);
    const texts = [...plot.querySelectorAll(".main-svg text")]
      .filter((text) => isShown(text) && text.textContent.trim() && !text.closest(".hoverlayer, .modebar, .updatemenu-container"))
      .filter((text) => getComputedStyle(text).opacity !== "0" && text.getBBox().width > 0)
      .map((text) => ({ text, shape: corners(text) }));
    for (const { text, shape } of texts) {
      const [xs, ys] = [shape.map(([x]) => x), shape.map(([, y]) => y)];
      if (Math.min(...xs) < own.left - SLACK || Math.max(...xs) > own.right + SLACK || Math.min(...ys) < own.top - SLACK || Math.max(...ys) > own.bottom + SLACK)
        faults.push(`${words(text)} is cut in the figure ${name}`);
    }
    texts.forEach(({ text, shape }, index) => {
      for (const other of texts.slice(index + 1))
        if (overlap(shape, other.shape)) faults.push(`${words(text)} overlaps ${words(other.text)} in the figure ${name}`);
    });
  }
  return faults;
};
