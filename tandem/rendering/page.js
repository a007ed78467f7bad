// Behaviour of a page: draws figures when they come into view, in the colours of the screen; sorts, filters and
// shortens tables; shows everything on paper.
"use strict";
(() => {
  const LONG = 30; // a table with more rows shows only the first and last ones
  const ENDS = 10; // number of rows shown at each end
  const FILTERED = 6; // a table with at least as many rows has a filter
  const PAPER_WIDTH = 700; // pixels between the margins of A4 and letter paper

  // ---- figures

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const finger = matchMedia("(pointer: coarse)");
  const parse = (id) => JSON.parse(document.getElementById(id).textContent);
  const templates = parse("templates");
  const known = new Map();

  // Inserts the parts that several figures share.
  const resolve = (node) => {
    if (Array.isArray(node)) return node.map(resolve);
    if (node === null || typeof node !== "object") return node;
    if ("_shared" in node) {
      if (!known.has(node._shared)) known.set(node._shared, parse(`shared-${node._shared}`));
      return known.get(node._shared);
    }
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, resolve(value)]));
  };

  const plots = [...document.querySelectorAll(".plot > div")];
  const template = () => (dark.matches ? templates.dark : templates.light);

  const draw = (plot) => {
    if (plot.dataset.state) return;
    plot.dataset.state = "drawing";
    const { data, layout } = resolve(parse(plot.dataset.figure));
    layout.template = template();
    // A finger moving over a figure scrolls the page.
    if (finger.matches) layout.dragmode = false;
    Plotly.newPlot(plot, data, layout, { displaylogo: false, responsive: true }).then(() => {
      plot.dataset.state = "drawn";
    });
  };

  const watch = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          watch.unobserve(entry.target);
          draw(entry.target);
        }
      }
    },
    { rootMargin: "400px" },
  );
  plots.forEach((plot) => watch.observe(plot));
  dark.addEventListener("change", () => {
    plots.filter((plot) => plot.dataset.state).forEach((plot) => Plotly.relayout(plot, { template: template() }));
  });

  // ---- tables

  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  // Unrounded numbers are in an attribute, which missing values and texts do not have.
  const valueOf = (cell, isNumber) => {
    if (!isNumber) return cell.textContent;
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const showers = [];

  for (const table of document.querySelectorAll(".table > table")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const original = [...body.rows];
    const words = original.map((row) => row.textContent.toLowerCase());
    const position = new Map(original.map((row, index) => [row, index]));
    let ordered = original;
    let all = original.length <= LONG;
    let query = [];
    const chosen = new Map(); // column -> text

    const count = element("span", { className: "quiet" });
    count.setAttribute("role", "status");
    const more = element("button", { type: "button" });
    const gap = element("tr", {}, element("td", { className: "gap", colSpan: heads.length }));

    const show = () => {
      const matching = ordered.filter((row) => {
        const text = words[position.get(row)];
        return (
          query.every((word) => text.includes(word)) &&
          [...chosen].every(([column, value]) => row.cells[column].textContent === value)
        );
      });
      const short = !all && matching.length > LONG;
      const shown = short ? [...matching.slice(0, ENDS), gap, ...matching.slice(-ENDS)] : matching;
      gap.firstChild.textContent = `${matching.length - 2 * ENDS} more`;
      body.replaceChildren(...shown);
      count.textContent =
        matching.length < original.length ? `${matching.length} of ${original.length} rows` : `${original.length} rows`;
      more.hidden = matching.length <= LONG;
      more.textContent = short ? `Show all ${matching.length}` : `Show the first and last ${ENDS}`;
    };

    heads.forEach((head, column) => {
      const isNumber = head.classList.contains("number");
      const button = element("button", { type: "button", title: "Sort" }, ...head.childNodes);
      head.append(button);
      const first = head.dataset.first ?? "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const direction = now === null ? first : now === first ? second : null;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        ordered = original;
        if (direction) {
          head.setAttribute("aria-sort", direction);
          const sign = direction === "ascending" ? 1 : -1;
          const values = new Map(original.map((row) => [row, valueOf(row.cells[column], isNumber)]));
          ordered = [...original].sort((one, other) => {
            const [a, b] = [values.get(one), values.get(other)];
            if (a === null || b === null) return (a === null) - (b === null); // missing values last in both directions
            return sign * (isNumber ? a - b : collator.compare(a, b));
          });
        }
        show();
      });
    });

    const controls = element("div", { className: "controls" });
    if (original.length >= FILTERED) {
      const input = element("input", { type: "search", placeholder: "Filter rows" });
      input.setAttribute("aria-label", "Filter rows");
      input.addEventListener("input", () => {
        query = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        show();
      });
      controls.append(input);
      heads.forEach((head, column) => {
        if (head.classList.contains("number")) return;
        const values = [...new Set(original.map((row) => row.cells[column].textContent))];
        if (values.length < 2 || values.length > 8 || values.length === original.length) return;
        const select = element("select", {}, element("option", { value: "" }, "all"));
        select.append(...values.sort(collator.compare).map((value) => element("option", { value }, value)));
        select.addEventListener("change", () => {
          if (select.value) chosen.set(column, select.value);
          else chosen.delete(column);
          show();
        });
        controls.append(element("label", {}, `${head.textContent} `, select));
      });
      more.addEventListener("click", () => {
        all = !all;
        show();
      });
      controls.append(more, count);
      table.parentElement.before(controls);
    }
    show();
    showers.push((everything) => {
      const before = all;
      all = all || everything;
      show();
      return () => {
        all = before;
        show();
      };
    });
  }

  // ---- sections, and paper

  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    target?.closest("details")?.setAttribute("open", "");
    target?.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  if (location.hash) unfold();

  let undo = [];
  addEventListener("beforeprint", () => {
    if (undo.length) return;
    for (const section of document.querySelectorAll("details:not([open])")) {
      section.open = true;
      undo.push(() => (section.open = false));
    }
    for (const shower of showers) undo.push(shower(true));
    for (const plot of plots) {
      draw(plot);
      // Figures without a width of their own are redrawn for the paper; the others are shrunk.
      const { width } = plot.layout;
      Plotly.relayout(plot, { template: templates.light, width: width ?? PAPER_WIDTH });
      plot.style.zoom = Math.min(1, PAPER_WIDTH / (width ?? PAPER_WIDTH));
      undo.push(() => {
        plot.style.zoom = "";
        Plotly.relayout(plot, { template: template(), width: width ?? null });
      });
    }
  });
  addEventListener("afterprint", () => {
    undo.forEach((step) => step());
    undo = [];
  });
})();
