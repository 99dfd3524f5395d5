// What `--node SPEC` finds, and what it says when it doesn't.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Folder } from "./worker-process.mjs";

/** The one line that the pool gets, which is on stderr too. */
async function refused(folder, spec) {
  const worker = folder.shim(spec);
  const reply = await worker.handshake();
  assert.deepEqual([reply.ok, reply.code], [false, "internal"]);
  assert.equal(await worker.receive(), undefined);
  assert.equal(await worker.exit, 78);
  assert.ok(worker.err.includes(`remuda: ${reply.error}\n`), worker.err);
  const head = `cannot run --node ${spec}: `;
  assert.ok(reply.error.startsWith(head) && !reply.error.includes("\n"), reply.error);
  return reply.error.slice(head.length);
}

async function answer(folder, spec, body = "a") {
  const worker = folder.shim(spec);
  assert.ok((await worker.handshake()).ok);
  return (await worker.call(body)).data.body;
}

test("modules of every kind", async (t) => {
  const folder = new Folder(t, {
    "deep/neighbour.mjs": "export const up = (s) => s.toUpperCase();",
    "deep/main.mjs": 'import { up } from "./neighbour.mjs"; export const f = up; export default (s) => s + "!";'
      + "export const o = { g: (s) => s + s };",
    "common.cjs": "module.exports = { f: (s) => s + '?' };",
    "node_modules/pack/index.js": "exports.f = (s) => s + '#';",
  });
  assert.equal(await answer(folder, "deep/main.mjs:f"), "A");
  assert.equal(await answer(folder, "deep/main.mjs:default"), "a!");
  assert.equal(await answer(folder, "deep/main.mjs:o.g"), "aa");
  assert.equal(await answer(folder, "common.cjs:f"), "a?");
  assert.equal(await answer(folder, "pack:f"), "a#");
  assert.equal(await answer(folder, "node:path:basename", "x/y"), "y");
});

test("what is missing", async (t) => {
  const folder = new Folder(t, { "some.mjs": "export const upper = 1; export function lower() {}" });
  assert.match(await refused(folder, "some.mjs"), /FILE\.mjs:FUNCTION/);
  assert.equal(await refused(folder, "none.mjs:f"), `there is no file ${folder.path}/none.mjs`);
  assert.equal(await refused(folder, "some.mjs:uper"), "there is no exported function uper; it exports lower");
  assert.equal(await refused(folder, "some.mjs:upper"), "upper is of type number, not a function");
  assert.match(await refused(folder, "nowhere:f"), /Cannot find module 'nowhere'; install it/);
});

test("what can't be loaded", async (t) => {
  const folder = new Folder(t, {
    "bad.mjs": "const x = 1;\nexport function f( {\n",
    "imports.mjs": 'import "package-of-nobody"; export const f = 1;',
    "raises.mjs": "undefined.k;",
    "lines.mjs": "throw new Error('first\\n\\n  second')",
    "wrong.mjs": "export const f = () => 1; f.capacity = -1;",
  });
  assert.match(await refused(folder, "bad.mjs:f"), /^bad\.mjs, line \d+: SyntaxError: .*; correct that line$/);
  assert.match(await refused(folder, "imports.mjs:f"), /package-of-nobody.*install it/);
  assert.match(await refused(folder, "raises.mjs:f"), /^TypeError: .* while it was loaded; the stack is in the log$/);
  assert.match(await refused(folder, "lines.mjs:f"), /^Error: first second while/);
  assert.match(await refused(folder, "wrong.mjs:f"), /whole number/);
});
