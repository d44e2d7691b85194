// Makes a request from the form, sends it whenever the form changes, and shows the answer or what is wrong beside its field.
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("form");
const answer = document.getElementById("answer");
const address = new URL("predict", document.baseURI);
const controls = [...form.querySelectorAll("[data-name]")];
const PAUSE = 150;
const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
let drawing = null;
let timer = 0;
let running = false;
let again = false;

class FieldError extends Error {
  constructor(control, message) {
    super(message);
    this.control = control;
  }
}

function errorOf(control) {
  return document.getElementById(`${control.id}-error`);
}

function clearErrors() {
  for (const place of form.querySelectorAll(".error")) place.textContent = "";
  for (const control of controls) control.removeAttribute("aria-invalid");
}

function complain(control, message) {
  const place = control ? errorOf(control) : document.getElementById("form-error");
  place.textContent = place.textContent ? `${place.textContent}; ${message}` : message;
  if (control) control.setAttribute("aria-invalid", "true");
}

// The JSON text of a field, or null where nothing is to be sent. Numbers stay as they were typed: a long has more digits than a script's number.
function fragment(control) {
  const { type, required } = control.dataset;
  const text = control.value;
  if (type === "image") return JSON.stringify(drawing.values());
  if (control.type === "checkbox") return String(control.checked);
  if (control.validity && control.validity.badInput) throw new FieldError(control, "this is no number");
  if (type === "body" || type === "any") {
    if (text.trim() === "") return null;
    try {
      JSON.parse(text);
    } catch {
      throw new FieldError(control, "this is no JSON");
    }
    return text.trim();
  }
  if (text === "") return type === "string" && required !== undefined ? '""' : null;
  if (type === "boolean") return text;
  if (["integer", "long", "float", "double"].includes(type)) return JSON_NUMBER.test(text) ? text : String(Number(text));
  // A browser leaves out seconds that are zero.
  return JSON.stringify(type === "datetime" && /T\d\d:\d\d$/.test(text) ? `${text}:00` : text);
}

function group(name) {
  const parts = [];
  for (const control of controls.filter((one) => one.dataset.group === name)) {
    const value = fragment(control);
    if (value !== null) parts.push(`${JSON.stringify(control.dataset.name)}: ${value}`);
  }
  return parts;
}

function wholeRecord(control) {
  const text = fragment(control);
  if (text === null) throw new FieldError(control, "write a request");
  return text;
}

function request() {
  const whole = controls.find((control) => control.dataset.type === "body");
  const record = whole ? wholeRecord(whole) : `{${group("record").join(", ")}}`;
  const params = group("params");
  if (!params.length) return { body: record, wrapped: false };
  const records = record.startsWith("[") ? record : `[${record}]`;
  return { body: `{"records": ${records}, "params": {${params.join(", ")}}}`, wrapped: true };
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function showCommand(body) {
  document.getElementById("curl").textContent = `curl ${quoted(address.href)} -H 'Content-Type: application/json' -d ${quoted(body)}`;
}

// The field that a problem's path leads to. It begins with "body", then "records" or "params" where the request has them.
function controlAt(loc, wrapped) {
  const rest = loc.slice(wrapped ? 2 : 1);
  const place = wrapped && loc[1] === "params" ? "params" : "record";
  const name = rest.find((part) => typeof part === "string");
  const found = controls.find((control) => control.dataset.group === place && control.dataset.name === name);
  return found ?? (controls.length === 1 ? controls[0] : null);
}

function showRefusal(status, body, wrapped) {
  const problems = Array.isArray(body.detail) ? body.detail : [];
  for (const { loc, msg } of problems) complain(controlAt(loc, wrapped), msg);
  if (!problems.length) complain(null, body.message ?? `The server answered ${status}.`);
  answer.replaceChildren(element("p", { className: "hint", textContent: problems.length ? "The input does not fit; see the fields." : `No prediction (status ${status}).` }));
}

async function ask({ body, wrapped }) {
  const began = performance.now();
  let response;
  try {
    // The server gives up by itself; this is for a connection that died.
    const signal = AbortSignal.timeout(1000 * (data.seconds + 10));
    response = await fetch(address, { method: "POST", headers: { "content-type": "application/json" }, body, signal });
  } catch {
    complain(null, "The server cannot be reached. Try again in a moment.");
    answer.replaceChildren(element("p", { className: "hint", textContent: "No prediction." }));
    return;
  }
  const spent = performance.now() - began;
  const found = await response.json().catch(() => ({}));
  clearErrors();
  if (response.ok) showAnswer(answer, found, spent);
  else showRefusal(response.status, found, wrapped);
}

// One request at a time; what changed meanwhile is asked for when it is answered.
async function predict() {
  clearTimeout(timer);
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    do {
      again = false;
      clearErrors();
      if (drawing && drawing.empty) {
        answer.replaceChildren(element("p", { className: "hint", textContent: "Nothing is drawn yet." }));
        continue;
      }
      const made = request();
      showCommand(made.body);
      answer.setAttribute("aria-busy", "true");
      await ask(made);
    } while (again);
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    complain(error.control, error.message);
    answer.replaceChildren(element("p", { className: "hint", textContent: "No prediction." }));
  } finally {
    answer.removeAttribute("aria-busy");
    running = false;
  }
  if (again) predict();
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(predict, PAUSE);
}

// The example as rows of the picture, flat or nested as it was logged.
function exampleRows() {
  const [height, width] = data.shape;
  const [value] = Object.values(data.example ?? {});
  if (!Array.isArray(value)) return null;
  const flat = value.flat(Infinity);
  return flat.length === height * width ? Array.from({ length: height }, (_, row) => flat.slice(row * width, (row + 1) * width)) : null;
}

function startDrawing() {
  drawing = new Drawing(controls.find((control) => control.dataset.type === "image"), document.getElementById("seen"), soon);
  document.getElementById("clear").addEventListener("click", () => drawing.clear());
  const rows = exampleRows();
  if (!rows) return;
  const button = document.getElementById("example");
  button.hidden = false;
  button.addEventListener("click", () => drawing.show(rows));
  drawing.show(rows);
}

async function copy() {
  const code = document.getElementById("curl");
  const status = document.getElementById("copied");
  const button = document.getElementById("copy");
  try {
    await navigator.clipboard.writeText(code.textContent);
    status.textContent = button.textContent = "Copied";
  } catch {
    // Without HTTPS or permission the text is at least selected.
    getSelection().selectAllChildren(code);
    status.textContent = button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

form.addEventListener("submit", (event) => { event.preventDefault(); predict(); });
form.addEventListener("input", soon);
form.addEventListener("change", soon);
document.getElementById("copy").addEventListener("click", copy);
if (data.shape) startDrawing();
// Nobody asked yet where there is nothing to ask with: an empty request is an error of the model's.
if (controls.some((control) => control.dataset.type !== "body" || control.value.trim() !== "")) predict();
