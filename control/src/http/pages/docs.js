// Renders /openapi.json. Everything from the document enters the page as text.
"use strict";

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((v) => JSON.stringify(v)).join(" | ");
  const any = schema.oneOf || schema.anyOf;
  if (any) return any.map(typeOf).join(" | ");
  const kind = [].concat(schema.type || "any").join(" | ");
  if (schema.items) return typeOf(schema.items) + "[]";
  if (schema.additionalProperties && schema.additionalProperties !== true)
    return "map of " + typeOf(schema.additionalProperties);
  return kind;
}

function row(...cells) {
  return el("tr", {}, ...cells.map((cell) => el("td", {}, cell)));
}

function fields(schema, schemas, seen) {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  const target = name ? schemas[name] : schema;
  if (!target || !target.properties || (name && seen.includes(name))) return "";
  const required = target.required || [];
  const table = el("table");
  for (const [field, inner] of Object.entries(target.properties)) {
    const nested = fields(inner.items || inner, schemas, name ? [...seen, name] : seen);
    table.append(row(
      el("code", {}, field + (required.includes(field) ? " *" : "")),
      el("code", {}, typeOf(inner)),
      el("span", {}, inner.description || "", nested),
    ));
  }
  return table;
}

function operation(method, path, op, schemas) {
  const box = el("details", { id: op.operationId },
    el("summary", {}, el("span", { class: "method " + method }, method.toUpperCase()),
      el("code", {}, path), " ", op.summary || ""));
  const detail = el("div", { class: "detail" });
  if (op.parameters && op.parameters.length) {
    const table = el("table");
    for (const p of op.parameters)
      table.append(row(el("code", {}, p.name + (p.required ? " *" : "")), p.in, typeOf(p.schema), p.description || ""));
    detail.append(el("h4", {}, "Parameters"), table);
  }
  const body = op.requestBody && Object.values(op.requestBody.content)[0].schema;
  if (body) detail.append(el("h4", {}, "Body: ", typeOf(body)), fields(body, schemas, []));
  for (const [status, answer] of Object.entries(op.responses)) {
    const media = answer.content && Object.values(answer.content)[0];
    detail.append(el("h4", {}, "Answer " + status + (media ? ": " + typeOf(media.schema) : "")));
    if (media && status !== "default") detail.append(fields(media.schema, schemas, []));
  }
  box.append(detail);
  return box;
}

async function show() {
  const main = document.getElementById("main");
  const answer = await fetch("/openapi.json");
  const document_ = await answer.json();
  const groups = new Map();
  for (const [path, item] of Object.entries(document_.paths))
    for (const [method, op] of Object.entries(item)) {
      const tag = (op.tags && op.tags[0]) || "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(method, path, op, document_.components.schemas));
    }
  main.replaceChildren(el("p", {}, document_.info.description));
  for (const [tag, operations] of groups) main.append(el("h2", {}, tag), ...operations);
}

show().catch((error) => { document.getElementById("main").textContent = String(error); });
