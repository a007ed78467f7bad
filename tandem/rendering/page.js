// Behaviour of a page: draws figures when they come into view, in the colours and width of the screen; sorts, filters
// and shortens tables; shows everything on paper.
"use strict";
(() => {
  const LONG = 30; // a table with more rows shows only the first and last ones
  const ENDS = 10; // number of rows shown at each end
  const FILTERED = 6; // a table with at least as many rows has a filter
  const PAPER_WIDTH = 700; // pixels between the margins of A4 and letter paper
  const NARROW = 600; // pixels; narrower figures have no colour bar beside them
  const LINE = 26; // most characters per line of the title of a narrow figure's axis
  const SMALLEST_ZOOM = 0.6; // of figures that cannot be drawn for another width; below it their words are illegible
  const NAME = 14; // most characters of a class's name beside an axis of a narrow figure
  const ROW = 28; // and of a row's name above its columns
  const CHOICE = 40; // and in a menu
  const NAME_ROOM = 10; // pixels per name of an axis, below which none is shown
  const AUTOMATIC = 60; // most names on an axis that has no list of them
  const PANEL_GAP = 84; // pixels between the panels of a column, for the marks of an axis and the next title

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
  const originals = new Map(); // plot -> the layout that it has at its full width
  const categories = new Map(); // plot -> the number of different names on each of its axes
  const page = document.documentElement;
  let printing = false;
  const room = () => (printing ? PAPER_WIDTH : document.querySelector("main").clientWidth);

  // Places of the panels of a figure in as many columns as a width has room for, as changes of its layout.
  const arranged = (layout, width) => {
    const { panels, columns, narrowest, panelHeight, around } = layout.meta;
    const fitting = Math.max(1, Math.min(columns, Math.floor(width / narrowest)));
    const rows = Math.ceil(panels / fitting);
    const [across, down] = [fitting > 1 ? 36 / width + 0.03 : 0, rows > 1 ? PANEL_GAP / (rows * panelHeight) : 0];
    const [wide, high] = [(1 - across * (fitting - 1)) / fitting, (1 - down * (rows - 1)) / rows];
    const changes = { height: around + rows * panelHeight };
    for (let panel = 0; panel < panels; panel += 1) {
      const [row, column] = [Math.floor(panel / fitting), panel % fitting];
      const [left, top] = [column * (wide + across), 1 - row * (high + down)];
      const number = panel ? panel + 1 : "";
      changes[`xaxis${number}.domain`] = [left, left + wide];
      changes[`yaxis${number}.domain`] = [Math.max(0, top - high), top];
      changes[`xaxis${number}.showticklabels`] = true;
      changes[`yaxis${number}.showticklabels`] = true;
      if (!layout.annotations?.[panel]) continue; // without a title
      changes[`annotations[${panel}].x`] = left + wide / 2;
      changes[`annotations[${panel}].y`] = top;
    }
    return changes;
  };

  // Changes of a figure's layout for the room that it has.
  const fitted = (plot) => {
    const layout = originals.get(plot);
    const [available, own, height] = [room(), layout.width ?? Infinity, layout.height ?? 450];
    if (layout.meta?.zoomed) {
      plot.style.zoom = Math.min(1, Math.max(available / own, printing ? 0 : SMALLEST_ZOOM));
      plot.style.width = `${own}px`; // its box scrolls
      return { width: own, height };
    }
    const width = Math.min(own, available);
    const titles = titled(layout, width);
    const changes = { ...titles, width, height: width < own && own < Infinity ? Math.round((height * width) / own) : height };
    Object.assign(changes, named(layout, categories.get(plot), changes));
    return layout.meta?.panels ? { ...changes, ...arranged(layout, width) } : changes;
  };
  // Titles of horizontal axes in lines that fit a narrow figure.
  const titled = (layout, width) => {
    const changes = {};
    for (const [name, axis] of Object.entries(layout)) {
      const text = name.startsWith("xaxis") && axis.title?.text;
      if (!text) continue;
      const lines = [""];
      for (const word of width < NARROW ? text.split(" ") : [text]) {
        const line = `${lines.at(-1)} ${word}`.trim();
        if (line.length > LINE && lines.at(-1)) lines.push(word);
        else lines[lines.length - 1] = line;
      }
      changes[`${name}.title.text`] = lines.join("<br>");
    }
    return changes;
  };
  // A name of at most so many characters, without its middle; names are HTML.
  const shortened = (name, most) => {
    const text = new DOMParser().parseFromString(name, "text/html").body.textContent;
    if (text.length <= most) return name;
    const end = Math.floor((most - 3) * 0.45);
    const short = `${text.slice(0, most - 3 - end)}...${text.slice(-end)}`;
    return short.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  };
  // The number of different names on each axis of a figure.
  const counted = (data) => {
    const values = {};
    for (const trace of data)
      for (const way of ["x", "y"]) {
        const axis = `${way}axis${(trace[`${way}axis`] ?? way).slice(1)}`;
        const given = Array.isArray(trace[way]) ? trace[way] : []; // numbers may be encoded, names never
        values[axis] = new Set([...(values[axis] ?? []), ...given]);
      }
    return Object.fromEntries(Object.entries(values).map(([axis, found]) => [axis, found.size]));
  };
  // Names beside the axes, and in the menus, of a narrow figure: shorter, or none where they would overlap.
  const named = (layout, numbers, { width, height }) => {
    const [changes, narrow] = [{}, width < NARROW];
    for (const [name, axis] of Object.entries(layout)) {
      if (!/^[xy]axis/.test(name) || axis.type !== "category") continue;
      const isRow = axis.tickangle === -45; // labels of rows, above their columns
      const shown = axis.ticktext?.length ?? Math.min(numbers[name] || AUTOMATIC, AUTOMATIC);
      changes[`${name}.showticklabels`] = !narrow || (name.startsWith("x") ? width : height) / shown >= NAME_ROOM;
      if (axis.ticktext) changes[`${name}.ticktext`] = axis.ticktext.map((text) => (narrow ? shortened(text, isRow ? ROW : NAME) : text));
      if (axis.labelalias)
        changes[`${name}.labelalias`] = Object.fromEntries(
          Object.entries(axis.labelalias).map(([key, text]) => [key, narrow ? shortened(text, NAME) : text]),
        );
      if (isRow) changes[`${name}.tickangle`] = narrow ? -90 : -45;
    }
    for (const [menu, { buttons }] of (layout.updatemenus ?? []).entries())
      buttons.forEach(({ label }, index) => {
        changes[`updatemenus[${menu}].buttons[${index}].label`] = narrow ? shortened(label, CHOICE) : label;
      });
    return changes;
  };
  // Menus begin at the left edge of a narrow figure, whose margin is known once it is drawn.
  const placeMenus = (plot) => {
    const menus = originals.get(plot).updatemenus ?? [];
    const { l, w } = plot._fullLayout._size;
    const narrow = plot._fullLayout.width < NARROW;
    const changes = Object.fromEntries(menus.map((menu, index) => [`updatemenus[${index}].x`, narrow ? -l / w : menu.x]));
    return menus.length ? Plotly.relayout(plot, changes) : undefined;
  };
  const sized = (plot, changes) => {
    plot.style.height = `${changes.height}px`;
    return changes;
  };
  const scaled = () => ({ showscale: room() >= NARROW });
  const heatmaps = (plot) => plot.data.flatMap((trace, index) => (trace.type === "heatmap" ? [index] : []));

  const draw = (plot) => {
    if (plot.dataset.state) return;
    plot.dataset.state = "drawing";
    const { data, layout } = resolve(parse(plot.dataset.figure));
    originals.set(plot, layout);
    categories.set(plot, counted(data));
    const drawn = structuredClone(layout);
    drawn.template = template();
    // A finger moving over a figure scrolls the page.
    if (finger.matches) drawn.dragmode = false;
    for (const trace of data) if (trace.type === "heatmap") Object.assign(trace, scaled());
    const changes = sized(plot, fitted(plot));
    Object.assign(drawn, { width: changes.width, height: changes.height });
    Plotly.newPlot(plot, data, drawn, { displaylogo: false, displayModeBar: finger.matches ? false : "hover" })
      .then(() => (layout.meta?.panels || changes.width < NARROW) && Plotly.relayout(plot, changes))
      .then(() => placeMenus(plot))
      .then(() => {
        plot.dataset.state = "drawn";
      });
  };

  const redraw = (plot) => {
    const colors = printing ? templates.light : template();
    const changes = { ...sized(plot, fitted(plot)), template: colors };
    const traces = heatmaps(plot);
    if (traces.length) Plotly.update(plot, scaled(), changes, traces).then(() => placeMenus(plot));
    else Plotly.relayout(plot, changes);
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
  const redrawAll = () => plots.filter((plot) => plot.dataset.state).forEach(redraw);
  dark.addEventListener("change", redrawAll);
  let width = innerWidth;
  addEventListener("resize", () => {
    // Not while printing, and not when the browser of a phone hides its address bar.
    if (printing || innerWidth === width) return;
    width = innerWidth;
    redrawAll();
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
    if (printing) return;
    printing = true;
    for (const section of document.querySelectorAll("details:not([open])")) {
      section.open = true;
      undo.push(() => (section.open = false));
    }
    for (const shower of showers) undo.push(shower(true));
    page.classList.add("paper");
    undo.push(() => page.classList.remove("paper"));
    for (const table of document.querySelectorAll(".table > table")) {
      const box = table.parentElement;
      box.style.width = `${PAPER_WIDTH}px`;
      const zoom = Math.min(1, PAPER_WIDTH / table.offsetWidth);
      box.style.width = "";
      if (zoom < 1) table.style.zoom = zoom;
      undo.push(() => (table.style.zoom = ""));
    }
    plots.forEach(draw);
    redrawAll();
  });
  addEventListener("afterprint", () => {
    printing = false;
    undo.forEach((step) => step());
    undo = [];
    redrawAll();
  });
})();
