// Shows a JSON schema as indented text that a person reads: names, types, limits.
function resolved(description, schema) {
  const path = schema?.$ref?.split("/").slice(1);
  return path ? path.reduce((inner, part) => inner[part.replaceAll("~1", "/").replaceAll("~0", "~")], description) : schema ?? {};
}

function short(value) {
  return Number.isSafeInteger(value) ? String(value) : value.toPrecision(3);
}

function limits(schema) {
  const { minimum, maximum, minItems, maxItems } = schema;
  if (minItems !== undefined && minItems === maxItems) return ` of ${minItems}`;
  if (minItems !== undefined) return `, ${minItems} or more`;
  if (minimum !== undefined && maximum !== undefined) return ` ${short(minimum)} to ${short(maximum)}`;
  return minimum === undefined ? "" : ` from ${short(minimum)}`;
}

// Lines of text; `seen` ends what refers to itself.
function schemaText(description, given, indent = "", seen = []) {
  if (given?.$ref && seen.includes(given.$ref)) return given.$ref.split("/").pop();
  const schema = resolved(description, given);
  const path = given?.$ref ? [...seen, given.$ref] : seen;
  const inner = (one, more = "") => schemaText(description, one, indent + more, path);
  const forms = schema.anyOf ?? schema.oneOf;
  if (forms) return forms.map((one) => inner(one)).join(`\n${indent}or `);
  const kind = [schema.type ?? "anything"].flat().join(" or ");
  const note = schema.description ? ` (${schema.description})` : schema.format ? ` (${schema.format})` : "";
  const preset = schema.default === undefined ? "" : `, default ${JSON.stringify(schema.default)}`;
  if (schema.type === "array") return `list${limits(schema)}: ${inner(schema.items)}`;
  if (schema.properties && Object.keys(schema.properties).length) {
    const needed = schema.required ?? [];
    const lines = Object.entries(schema.properties).map(([name, one]) =>
      `${indent}  ${JSON.stringify(name)}${needed.includes(name) ? "" : "?"}: ${inner(one, "  ")}`);
    return `{\n${lines.join("\n")}\n${indent}}`;
  }
  return `${kind}${limits(schema)}${note}${preset}`;
}
