// What a worker process answers, line by line.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { Folder, SDK, Worker } from "./worker-process.mjs";

const HANDLER = `
  import { spawnSync } from "node:child_process";
  import { appendFileSync, readFileSync, readlinkSync } from "node:fs";
  export const upper = (s) => s.toUpperCase();
  export const echo = (value) => value;
  export async function later(body) {
    await new Promise((resolve) => setImmediate(resolve));
    if (body === "fail") throw new TypeError("no");
    return body;
  }
  const loop = []; loop.push(loop);
  let deep = []; for (let i = 0; i < 100000; i += 1) deep = [deep];
  const results = {
    none: () => undefined, bytes: () => Buffer.from("grüß"), binary: () => Uint8Array.of(255, 254),
    nan: () => NaN, inf: () => ({ x: [Infinity] }), big: () => 1n, fn: () => () => 1, loop: () => loop,
    deep: () => deep, surrogate: () => ["\\ud800"], lines: () => "a\\nb", nulls: () => [null, { a: null }],
    text: () => "\\\\ud800", key: () => undefined.text, thrown: () => { throw "a string"; }, plain: () => "ok",
    silent: () => { throw { get message() { throw 1; } }; }, nothing: () => { throw undefined; },
    exit: () => process.exit(3),
  };
  export const choose = (key) => results[key]();
  export function count(file) {
    appendFileSync(file, "x");
    if (readFileSync(file).length % 3 === 0) throw new Error("third");
    return file;
  }
  export const descriptors = () => [
    readlinkSync("/proc/self/fd/3"), spawnSync("ls", ["-l", "/proc/self/fd"], { encoding: "utf8" }).stdout];
  export const prints = (body) => { console.log(body); process.stdout.write("no newline"); return body; };
  export const environment = (name) => process.env[name] ?? null;
`;

async function start(t, name, env) {
  const worker = new Folder(t, { "handler.mjs": HANDLER }).shim(`handler.mjs:${name}`, env);
  worker.greeting = await worker.handshake();
  return worker;
}

function failed(reply, code, pattern) {
  assert.deepEqual([reply.ok, reply.code], [false, code], JSON.stringify(reply));
  if (pattern) assert.match(reply.error, pattern);
}

test("the handshake declares an ordered worker that takes batches", async (t) => {
  const { greeting, process: child } = await start(t, "upper");
  const { instance, ...data } = greeting.data;
  assert.equal(instance.length, 32);
  assert.deepEqual({ ...greeting, data }, { ok: true, data: {
    kind: "handshake", version: "1", pid: child.pid, capacity: 1, ordered: true, batch: 512, capabilities: [] } });
});

test("any other version is told its own", async (t) => {
  const worker = new Folder(t, { "handler.mjs": HANDLER }).shim("handler.mjs:upper");
  assert.equal((await worker.ask({ op: "handshake", version: "2" })).data.version, "1");
});

test("a first line that is no handshake ends the connection", async (t) => {
  for (const line of ["GET / HTTP/1.1\r\n", '{"op":"call","id":1,"body":1}\n', "[]\n", "\n", Buffer.from([255, 10])]) {
    const worker = new Folder(t, { "handler.mjs": HANDLER }).shim("handler.mjs:upper");
    worker.send(line, '{"op":"handshake","version":"1"}\n{"op":"shutdown"}\n');
    failed(await worker.receive(), "handshake_required");
    assert.equal(await worker.receive(), undefined);
    assert.equal(await worker.exit, 0);
  }
});

test("jobs are answered one by one in order", async (t) => {
  for (const name of ["upper", "later"]) {
    const worker = await start(t, name);
    worker.send(...Array.from({ length: 40 }, (_, n) => ({ op: "call", id: n + 1, body: `A${n}` })));
    for (let n = 0; n < 40; n += 1) {
      assert.deepEqual(await worker.receive(), { id: n + 1, ok: true, data: { kind: "result", body: `A${n}` } });
    }
  }
});

test("any value goes there and back", async (t) => {
  const worker = await start(t, "echo");
  for (const value of [null, true, 0, -1.5, "", "a\nb", "\u2028\u{1f600}", [], { a: [1, { b: null }] }, "\ufffd"]) {
    assert.deepEqual((await worker.call(value)).data.body, value);
  }
});

test("ids come back byte for byte", async (t) => {
  const worker = await start(t, "echo");
  for (const id of ["1", "0", "-0", "1.0", "1e2", "9007199254740993", '"a"', '""', '"\\u00e9\\n"', '"é"',
    "123456789012345678901234567890", `"${"x".repeat(64)}"`]) {
    worker.send(`{"body" : {"id":[1],"x":"\\"id\\":2"}, "id" : ${id} , "op":"call"}\n`);
    const line = await worker.line();
    assert.ok(line.startsWith(`{"id":${id},"ok":true`), `${id}: ${line}`);
  }
  for (const id of [null, true, [], {}, "x".repeat(65)]) {
    const reply = await worker.call(1, { id });
    assert.ok(!("id" in reply));
    failed(reply, "bad_request");
  }
  assert.deepEqual(await worker.ask({ op: "call", body: 1 }), { ok: true, data: { kind: "result", body: 1 } });
});

test("results that JavaScript has and JSON has not", async (t) => {
  const worker = await start(t, "choose");
  for (const [key, value] of [["none", null], ["bytes", "grüß"], ["lines", "a\nb"], ["nulls", [null, { a: null }]],
    ["text", "\\ud800"]]) {
    assert.deepEqual((await worker.call(key)).data.body, value);
  }
  for (const [key, pattern] of [["binary", /aren't UTF-8/], ["nan", /NaN/], ["inf", /Infinity/], ["big", /bigint/],
    ["fn", /type function/], ["loop", /holds itself/], ["deep", /too deeply/], ["surrogate", /surrogate/]]) {
    failed(await worker.call(key), "handler_error", pattern);
  }
});

test("exceptions come with the user's frames", async (t) => {
  const worker = await start(t, "choose");
  const reply = await worker.call("key");
  failed(reply, "handler_error", /^TypeError: Cannot read/);
  assert.match(reply.traceback, /handler\.mjs:\d+/);
  assert.doesNotMatch(reply.traceback, /\[eval|node:internal/);
  failed(await worker.call("thrown"), "handler_error", /a string/);
  failed(await worker.call("silent"), "handler_error", /could not be had/);
  failed(await worker.call("nothing"), "handler_error", /undefined/);
  const later = await start(t, "later");
  failed(await later.call("fail"), "handler_error", /^TypeError: no$/);
});

test("process.exit ends the worker without an answer", async (t) => {
  const worker = await start(t, "choose");
  worker.send({ op: "call", id: 1, body: "exit" });
  assert.equal(await worker.receive(), undefined);
  assert.equal(await worker.exit, 3);
});

test("sixteen mebibytes", async (t) => {
  const worker = await start(t, "echo");
  const body = "x".repeat(16 << 20);
  const reply = await worker.call(body);
  assert.ok(reply.data.body === body);
});

test("unknown operations and fields, and what is no JSON", async (t) => {
  const worker = await start(t, "upper");
  failed(await worker.ask({ op: "dance", id: 3 }), "unknown_op", /dance/);
  failed(await worker.ask({ op: "reset" }), "unknown_op");
  for (const request of [{ op: 1 }, { op: "call", id: 1 }, { op: "call", id: 1, body: 1, bodies: [1] },
    { op: "call", id: 1, bodies: "abc" }, { op: "call", id: 1, bodies: [] },
    { op: "call", id: 1, bodies: Array(513).fill("x") }]) {
    failed(await worker.ask(request), "bad_request");
  }
  for (const line of ["{", Buffer.from([255]), Buffer.from('{"op":"call","id":7,"body":"\xff"}', "latin1"),
    '{"op":"call","id":7,"body":NaN}', '{"op":"call","id":7,"body":1}x', "[1]"]) {
    worker.send(line, "\n");
    const reply = await worker.receive();
    failed(reply, "bad_request");
    assert.equal(reply.id, String(line).includes("call") ? 7 : undefined);
  }
  worker.send("\n \n");
  assert.equal((await worker.call("a", { colour: "red", timeout_ms: 5, hops: 1 })).data.body, "A");
  assert.equal((await worker.ask({ op: "status", id: "s" })).data.jobs, 1);
});

test("deep nesting is an answer, and no crash", async (t) => {
  const worker = await start(t, "echo");
  worker.send(`{"op":"call","id":7,"body":${"[".repeat(100000)}${"]".repeat(100000)}}\n`);
  assert.equal((await worker.receive()).id, 7);
  assert.equal((await worker.call(1)).data.body, 1);
});

test("batches, with failures among them", async (t) => {
  for (const name of ["echo", "later"]) {
    const worker = await start(t, name);
    const bodies = ["a", "", '","', "\n", null, 1, ["x"], "é"];
    assert.deepEqual(await worker.ask({ op: "call", id: 8, bodies }),
      { id: 8, ok: true, data: { kind: "results", bodies, failed: {} } });
  }
  const worker = await start(t, "choose");
  const { data } = await worker.ask({ op: "call", id: 8, bodies: ["plain", "key", "nan", "none", "thrown", "plain"] });
  assert.deepEqual(data.bodies, ["ok", null, null, null, null, "ok"]);
  assert.deepEqual(Object.keys(data.failed), ["1", "2", "4"]);
  assert.match(data.failed[1].traceback, /handler\.mjs/);
  const later = await start(t, "later");
  const reply = await later.ask({ op: "call", id: 8, bodies: ["a", "fail", "c"] });
  assert.deepEqual(reply.data.bodies, ["a", null, "c"]);
  assert.equal(reply.data.failed[1].error, "TypeError: no");
});

test("no body runs twice", async (t) => {
  const folder = new Folder(t, { "handler.mjs": HANDLER });
  const worker = folder.shim("handler.mjs:count");
  await worker.handshake();
  const file = path.join(folder.path, "runs");
  const { data } = await worker.ask({ op: "call", id: 8, bodies: Array(100).fill(file) });
  assert.equal(readFileSync(file, "utf8").length, 100);
  assert.equal(Object.keys(data.failed).length, 33);
});

test("a handler may take a list", async (t) => {
  const folder = new Folder(t, { "lists.mjs": `
    export const upper = (texts) => texts.map((text) => text === "" ? new Error("empty") : text.toUpperCase());
    upper.batch = 4;
    export const short = async (texts) => texts.slice(1);
    short.batch = 4;` });
  const worker = folder.shim("lists.mjs:upper");
  assert.equal((await worker.handshake()).data.batch, 4);
  const { data } = await worker.ask({ op: "call", id: 1, bodies: ["a", "", "c"] });
  assert.deepEqual([data.bodies, data.failed[1].error], [["A", null, "C"], "Error: empty"]);
  assert.equal((await worker.call("a")).data.body, "A");
  failed(await worker.call(""), "handler_error", /empty/);
  const short = folder.shim("lists.mjs:short");
  await short.handshake();
  const reply = await short.ask({ op: "call", id: 1, bodies: ["a", "b"] });
  assert.match(reply.data.failed[1].error, /2 bodies and returned 1/);
  assert.deepEqual(reply.data.bodies, [null, null]);
});

test("with a capacity, jobs run at once and can be cancelled", async (t) => {
  const folder = new Folder(t, { "many.mjs": `
    const arrived = [];
    export const meet = (body) => new Promise((resolve) => {
      arrived.push(resolve);
      if (arrived.length === body) arrived.splice(0).reverse().forEach((done) => done(body));
    });
    meet.capacity = 4;
    export async function hang(body, { signal }) {
      if (body === "go") return "went";
      return new Promise((resolve, reject) => signal.addEventListener("abort", () =>
        body === "stubborn" ? resolve("done anyway") : reject(signal.reason)));
    }
    hang.capacity = 2;` });
  const meet = folder.shim("many.mjs:meet");
  const { data } = await meet.handshake();
  assert.deepEqual([data.capacity, data.ordered, data.batch, data.capabilities], [4, false, 0, ["cancel"]]);
  meet.send(...[1, 2, 3, 4].map((id) => ({ op: "call", id, body: 4 })));
  const ids = [];
  for (let n = 0; n < 4; n += 1) ids.push((await meet.receive()).id);
  assert.deepEqual(ids.sort(), [1, 2, 3, 4]);

  const hang = folder.shim("many.mjs:hang");
  await hang.handshake();
  hang.send({ op: "call", id: "a", body: 0 }, { op: "call", id: 2, body: "stubborn" }, { op: "call", id: 3, body: "go" },
    { op: "cancel", id: "a" });
  const first = await hang.receive();
  assert.deepEqual([first.id, first.code], ["a", "cancelled"]);
  assert.deepEqual((await hang.receive()).data, { kind: "result", body: "went" });
  hang.send({ op: "cancel", id: 99 }, { op: "cancel", id: 2 });
  assert.equal((await hang.receive()).data.body, "done anyway");
  hang.send({ op: "call", body: "go" }, { op: "status" });
  assert.equal((await hang.receive()).data.kind, "result");
  assert.equal((await hang.receive()).data.kind, "status");
});

test("the process ends with its socket, and after shutdown", async (t) => {
  const worker = await start(t, "upper");
  assert.equal(await worker.finish(), 0);
  assert.equal(worker.out + worker.err, "");
  const other = await start(t, "upper");
  assert.deepEqual((await other.ask({ op: "shutdown", id: 1 })).data, { kind: "shutdown" });
  assert.equal(await other.exit, 0);
});

test("prints are a log", async (t) => {
  const worker = await start(t, "prints");
  assert.equal((await worker.call("hello")).data.body, "hello");
  await worker.finish();
  assert.equal(worker.out, "hello\nno newline");
});

test("a started program does not inherit the socket", async (t) => {
  const worker = await start(t, "descriptors");
  const [socket, inherited] = (await worker.call(1)).data.body;
  assert.match(socket, /^socket:/);
  assert.ok(!inherited.includes(socket), inherited);
});

test("Ctrl-C is the pool's matter", async (t) => {
  const worker = await start(t, "environment");
  worker.process.kill("SIGINT");
  assert.equal((await worker.call("REMUDA_FD")).data.body, null);
  assert.equal((await worker.call("REMUDA_WORKER_SLOT")).data.body, "1");
});

test("a worker in three lines", async (t) => {
  const folder = new Folder(t);
  const file = folder.write("three.mjs", `
    import { serve, slot, workerId } from ${JSON.stringify(SDK)};
    serve((body) => [body, slot(), workerId()]);`);
  const worker = folder.started(new Worker([process.execPath, file]));
  await worker.handshake();
  assert.deepEqual((await worker.call("a")).data.body, ["a", 1, "w-7"]);
});
