// The JavaScript examples, each as its first lines say.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { SDK, Worker } from "./worker-process.mjs";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

async function started(t, argv) {
  const worker = new Worker([process.execPath, ...argv], { cwd: ROOT });
  t.after(() => worker.stop());
  assert.ok((await worker.handshake()).ok);
  return async (body) => (await worker.call(body)).data.body;
}

test("upper", async (t) => {
  const upper = await started(t, [SDK, "--shim", "examples/upper.mjs:upper"]);
  assert.equal(await upper("grün"), "GRÜN");
});

test("a worker of one's own", async (t) => {
  const reverse = await started(t, ["examples/worker.mjs"]);
  assert.equal(await reverse("abc"), "cba");
});

test("wc", async (t) => {
  const count = await started(t, [SDK, "--shim", "examples/wc.mjs:count"]);
  const bytes = readFileSync(path.join(ROOT, "examples/README.md"));
  const text = bytes.toString("latin1");
  assert.deepEqual(await count({ path: "examples/README.md" }), {
    path: "examples/README.md", lines: text.match(/\n/g).length, words: text.match(/[^\t-\r ]+/g).length,
    bytes: bytes.length });
});
