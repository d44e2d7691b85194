// Shows what the model answered: a class with its probabilities, a number, or whatever it is.
const MOST_BARS = 12;

function shownNumber(value) {
  return String(Number.isInteger(value) ? value : Number(value.toPrecision(8)));
}

function shownValue(value) {
  if (value === null) return "no value";
  if (typeof value === "number") return shownNumber(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

// A class as people call it.
function named(name) {
  return Object.hasOwn(data.labels, name) ? `${data.labels[name]} (${name})` : name;
}

function percent(share) {
  const text = (100 * share).toFixed(1);
  return (text === "0.0" && share > 0 ? "< 0.1" : text === "100.0" && share < 1 ? "> 99.9" : text) + "\u00a0%";
}

// One row per class: its name, a bar, its figure. Widths are set by script, which the page's policy allows.
function bars(shares, chosen) {
  let entries = Object.entries(shares);
  const all = entries.length;
  if (all > MOST_BARS) entries = entries.sort((a, b) => b[1] - a[1]).slice(0, MOST_BARS);
  const body = element("tbody", {});
  for (const [name, share] of entries) {
    const bar = element("div", { className: "bar" });
    bar.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
    const row = element("tr", { className: name === chosen ? "chosen" : "" },
      element("th", { scope: "row", textContent: named(name) }),
      element("td", { className: "track" }, element("div", { className: "rail", ariaHidden: "true" }, bar)),
      element("td", { className: "figure", textContent: percent(share) }));
    body.append(row);
  }
  const caption = all > entries.length ? `The ${entries.length} most probable of ${all} classes` : "Probability of each class";
  return element("table", { className: "bars" }, element("caption", { textContent: caption }), body);
}

function isShares(value) {
  return Array.isArray(value) && value.length > 1 && value.every((one) => typeof one === "number" && one >= 0 && one <= 1)
    && Math.abs(value.reduce((sum, one) => sum + one, 0) - 1) < 1e-3;
}

function oneAnswer(row) {
  const { prediction, probabilities } = row;
  const nodes = [];
  if (probabilities) {
    nodes.push(element("p", { className: "result", textContent: named(shownValue(prediction)) }), bars(probabilities, shownValue(prediction)));
  } else if (isShares(prediction)) {
    const best = String(prediction.indexOf(Math.max(...prediction)));
    nodes.push(element("p", { className: "result", textContent: named(best) }), bars({ ...prediction }, best));
  } else if (typeof prediction === "object" && prediction !== null) {
    nodes.push(element("pre", {}, element("code", { textContent: JSON.stringify(prediction, null, 1) })));
  } else {
    nodes.push(element("p", { className: "result", textContent: named(shownValue(prediction)) }));
  }
  return nodes;
}

function showAnswer(target, body, milliseconds) {
  const rows = body.predictions ?? [body];
  const nodes = rows.slice(0, MOST_BARS).flatMap(oneAnswer);
  if (rows.length > MOST_BARS) nodes.push(element("p", { className: "hint", textContent: `and ${rows.length - MOST_BARS} more` }));
  const time = milliseconds < 10 ? milliseconds.toFixed(1) : milliseconds.toFixed(0);
  nodes.push(element("p", { className: "hint", textContent: `${body.model ?? ""} version ${body.version ?? "?"}, ${time} ms with the network` }));
  target.replaceChildren(...nodes);
}
