// Builds the documentation from openapi.json: every operation with its schemas, examples and a box to try it.

const LONGEST = 20000;

function schemaBlock(description, title, schema) {
  return element("details", {}, element("summary", { textContent: title }),
    element("pre", { tabIndex: 0 }, element("code", { textContent: schemaText(description, schema) })));
}

function responseRows(description, responses) {
  const rows = Object.entries(responses).map(([status, given]) => {
    const response = resolved(description, given);
    return element("div", {}, element("dt", { textContent: status }), element("dd", { textContent: response.description }));
  });
  return element("details", {}, element("summary", { textContent: "Answers" }), element("dl", { className: "answers" }, ...rows));
}

function exampleText(media) {
  if (media.example === undefined) return "";
  if (typeof media.example === "string") return media.example;
  const text = JSON.stringify(media.example, null, 1);
  return text.length > 2000 ? JSON.stringify(media.example) : text;
}

function requestFields(id, content) {
  const kinds = Object.keys(content);
  const select = element("select", { id: `${id}-type` }, ...kinds.map((kind) => element("option", { value: kind, textContent: kind })));
  const area = element("textarea", { id: `${id}-body`, rows: 8, spellcheck: false, value: exampleText(content[kinds[0]]) });
  select.addEventListener("change", () => { area.value = exampleText(content[select.value]); });
  const nodes = [
    element("div", { className: "field" }, element("label", { htmlFor: select.id, textContent: "Content type" }), select),
    element("div", { className: "field" }, element("label", { htmlFor: area.id, textContent: "Body" }), area),
  ];
  return { select, area, nodes };
}

function laidOut(text, type) {
  if (!type.includes("json")) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text;
  }
}

async function send(target, path, method, fields) {
  const options = { method: method.toUpperCase() };
  if (fields) Object.assign(options, { body: fields.area.value, headers: { "content-type": fields.select.value } });
  const began = performance.now();
  try {
    // Relative, so that it works below /models/NAME/ and on a port of the model's own.
    const response = await fetch(`.${path}`, options);
    const text = await response.text();
    const spent = (performance.now() - began).toFixed(0);
    const type = response.headers.get("content-type") ?? "";
    const shown = laidOut(text, type);
    const more = shown.length > LONGEST ? `\n... ${shown.length - LONGEST} more characters` : "";
    target.replaceChildren(
      element("p", { className: response.ok ? "status live" : "status none", textContent: `${response.status} ${response.statusText}, ${spent} ms` }),
      element("details", {}, element("summary", { textContent: "Headers" }),
        element("pre", { tabIndex: 0 }, element("code", { textContent: [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n") }))),
      element("pre", { tabIndex: 0 }, element("code", { textContent: shown.slice(0, LONGEST) + more })));
  } catch {
    target.replaceChildren(element("p", { className: "status none", textContent: "The server cannot be reached." }));
  }
}

function tryBox(operation, path, method, content) {
  const fields = content ? requestFields(operation.operationId, content) : null;
  const answer = element("div", { className: "tried" });
  answer.setAttribute("aria-live", "polite");
  const button = element("button", { type: "submit", className: "primary", textContent: "Send" });
  button.setAttribute("aria-label", `Send ${method.toUpperCase()} ${path}`);
  const form = element("form", {}, ...(fields?.nodes ?? []), element("div", { className: "buttons" }, button), answer);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(answer, path, method, fields);
  });
  return form;
}

function operationBlock(description, path, method, operation) {
  const content = operation.requestBody ? resolved(description, operation.requestBody).content : null;
  const good = resolved(description, operation.responses["200"]).content?.["application/json"]?.schema;
  const title = element("summary", {}, element("span", { className: `method ${method}`, textContent: method.toUpperCase() }), " ",
    element("code", { textContent: path }), " ", element("span", { className: "hint", textContent: operation.summary }));
  const parts = [];
  for (const [kind, media] of Object.entries(content ?? {})) parts.push(schemaBlock(description, `Request, ${kind}`, media.schema));
  if (good) parts.push(schemaBlock(description, "Answer 200, application/json", good));
  parts.push(responseRows(description, operation.responses));
  return element("details", { className: "card operation", id: operation.operationId }, title, ...parts, tryBox(operation, path, method, content));
}

async function build() {
  const main = document.getElementById("operations");
  const state = document.getElementById("state");
  try {
    const response = await fetch("openapi.json");
    if (!response.ok) throw new Error(String(response.status));
    const description = await response.json();
    for (const tag of description.tags) {
      const section = element("section", {}, element("h2", { textContent: tag.description }));
      for (const [path, methods] of Object.entries(description.paths)) {
        for (const [method, operation] of Object.entries(methods)) {
          if (operation.tags.includes(tag.name)) section.append(operationBlock(description, path, method, operation));
        }
      }
      main.append(section);
    }
    state.remove();
    const asked = document.getElementById(location.hash.slice(1) || "predict");
    if (asked?.tagName === "DETAILS") asked.open = true;
  } catch (error) {
    state.textContent = `The description could not be loaded (${error.message}). Reload the page.`;
  }
}

build();
