// The client, against a worker that listens and against peers that misbehave.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, statSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { test } from "node:test";
import { connect, RemudaError } from "../remuda.mjs";
import { Folder, SDK } from "./worker-process.mjs";

const WORKER = `
  import { serve } from ${JSON.stringify(SDK)};
  async function work(body, { signal } = {}) {
    if (body === "fail") throw new TypeError("no");
    if (body === "hang") await new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
    return typeof body === "string" ? body.toUpperCase() : body;
  }
  const server = serve(work, { listen: process.argv[2], capacity: Number(process.argv[3]) });
  server.on("listening", () => console.log("listening"));`;

/** A worker started by hand: its process and its socket's path. */
async function listening(t, capacity = 1, folder = new Folder(t)) {
  const file = path.join(folder.path, "x.sock");
  const child = spawn(process.execPath, [folder.write("worker.mjs", WORKER), file, String(capacity)],
    { stdio: ["ignore", "pipe", "inherit"] });
  const exit = once(child, "close");
  t.after(() => (child.kill("SIGKILL"), exit));
  await once(child.stdout, "data");
  return { child, exit, file, folder };
}

const code = (expected) => (error) => error instanceof RemudaError && error.code === expected;

test("calls, maps and status", async (t) => {
  const { file } = await listening(t);
  const pool = await connect(`unix:${file},mode=0600`);
  assert.equal(pool.peer.capacity, 1);
  assert.equal(await pool.call("abc"), "ABC");
  assert.deepEqual(await pool.call({ a: null }, { timeout: 20_000 }), { a: null });
  const bodies = Array.from({ length: 500 }, (_, n) => `a${n}`);
  const results = [];
  for await (const result of pool.map(bodies)) results.push(result);
  assert.deepEqual(results, bodies.map((body) => body.toUpperCase()));
  assert.equal((await pool.status()).kind, "status");
  await assert.rejects(pool.call("fail"), (error) => code("handler_error")(error)
    && error.reason === "TypeError: no" && /worker\.mjs/.test(error.traceback));
  const mixed = [];
  for await (const result of pool.map(["a", "fail", "c"], { returnErrors: true })) mixed.push(result.code ?? result);
  assert.deepEqual(mixed, ["A", "handler_error", "C"]);
  await assert.rejects(async () => {
    for await (const result of pool.map(["a", "fail", "c"])) assert.equal(result, "A");
  }, code("handler_error"));
  assert.equal(await pool.call("after"), "AFTER");
  await assert.rejects(pool.call(1n), code("bad_request"));
  await pool.close();
  await assert.rejects(pool.call("x"), code("disconnected"));
});

test("large bodies both ways at once", async (t) => {
  const { file } = await listening(t);
  const pool = await connect(file);
  const bodies = Array.from({ length: 20 }, (_, n) => [n, "x".repeat(1_000_000)]);
  assert.deepEqual(await Promise.all(bodies.map((body) => pool.call(body))), bodies);
  await pool.close();
});

test("a timeout that is none is refused, and a long one is kept", async (t) => {
  const { file } = await listening(t);
  const pool = await connect(`unix:${file}`);
  for (const timeout of [-1, NaN, Infinity]) {
    await assert.rejects(pool.call("a", { timeout }), /timeout is .*: give milliseconds/);
  }
  const warned = [];
  process.on("warning", (warning) => warned.push(warning.name));
  assert.equal(await pool.call("a", { timeout: 2 ** 40 }), "A");
  assert.equal(await pool.call("a", { timeout: null }), "A");
  assert.deepEqual(warned, []);
  await pool.close();
});

test("timeouts and signals cancel the job", async (t) => {
  const { file } = await listening(t, 2);
  const pool = await connect(file);
  await assert.rejects(pool.call("hang", { timeout: 20 }), code("timeout"));
  const controller = new AbortController();
  const call = pool.call("hang", { signal: controller.signal });
  const other = pool.call("hang");
  assert.equal((await pool.status()).kind, "status");
  controller.abort(new Error("enough"));
  await assert.rejects(call, /enough/);
  assert.equal(await pool.call("room"), "ROOM");
  await pool.close();
  await assert.rejects(other, code("disconnected"));
});

test("the peer dies and another takes its place", async (t) => {
  const first = await listening(t, 2);
  const pool = await connect(first.file);
  const call = pool.call("hang");
  await pool.status();
  first.child.kill("SIGKILL");
  await assert.rejects(call, code("disconnected"));
  await first.exit;
  await listening(t, 1, first.folder); // in the place of a stale socket
  assert.equal(await pool.call("b"), "B");
  await pool.close();
});

test("the socket is its owner's, and goes with the worker", async (t) => {
  const { child, exit, file, folder } = await listening(t);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const second = spawn(process.execPath, [path.join(folder.path, "worker.mjs"), file, "1"], { stdio: "ignore" });
  assert.equal((await once(second, "close"))[0], 78);
  child.kill("SIGTERM");
  assert.equal((await exit)[0], 0);
  assert.ok(!existsSync(file));
});

test("a client that closed its sending half gets its answers", async (t) => {
  const { file } = await listening(t);
  const socket = net.connect({ path: file, allowHalfOpen: true });
  socket.end('{"op":"handshake","version":"1"}\n{"op":"call","id":1,"body":"a"}\n');
  let text = "";
  for await (const chunk of socket) text += chunk;
  assert.match(text, /"A"/);
});

test("a client that doesn't read is read no further, and holds up no other", async (t) => {
  for (const capacity of [1, 4]) {
    const { file } = await listening(t, capacity);
    const greedy = net.connect(file);
    greedy.on("error", () => {});
    greedy.pause();
    greedy.write('{"op":"handshake","version":"1"}\n');
    const call = `{"op":"call","id":1,"body":"${"x".repeat(100_000)}"}\n`;
    let calls = 0;
    const stuck = new Promise((resolve) => {
      const more = () => {
        while (greedy.write(call)) calls += 1;
        calls += 1;
        const timer = setTimeout(resolve, 1000); // no event tells that nothing happens
        greedy.once("drain", () => {
          clearTimeout(timer);
          more();
        });
      };
      more();
    });
    await stuck;
    assert.ok(calls < 500, `${calls} calls were read`);
    const pool = await connect(file);
    assert.equal(await pool.call("a"), "A");
    await pool.close();
    greedy.destroy();
  }
});

test("an endless line is refused", async (t) => {
  const { file } = await listening(t);
  const socket = net.connect(file);
  const more = () => { while (!socket.destroyed && socket.write(Buffer.alloc(1 << 20, "x"))); };
  socket.on("error", () => {});
  socket.on("drain", more);
  socket.resume();
  more();
  await new Promise((resolve) => socket.once("close", resolve));
  const pool = await connect(file);
  assert.equal(await pool.call("a"), "A");
  await pool.close();
});

/** What a client says of a peer that answers the handshake with `answer`; undefined closes at once. */
async function refused(t, answer, options) {
  const file = path.join(new Folder(t).path, "x.sock");
  const seen = [];
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      seen.push(chunk.toString());
      if (answer === undefined) socket.destroy();
      else socket.write(answer);
    });
  }).listen(file);
  await once(server, "listening");
  const error = await connect(file, options).then(() => assert.fail("connected"), (reason) => reason);
  server.close();
  return { error, greeting: seen.join("") };
}

test("peers that aren't what the client expects", async (t) => {
  assert.match((await refused(t, '{"ok":true,"data":{"version":"2"}}\n')).error.message, /speaks version 2/);
  assert.match((await refused(t, "HTTP/1.1 400 Bad Request\r\n")).error.message, /does not speak/);
  assert.match((await refused(t, undefined)).error.message, /closed the connection/);
  assert.match((await refused(t, '{"ok":tr', { connectTimeout: 50 })).error.message, /in time/);
  const { error, greeting } = await refused(t, '{"ok":false,"code":"unauthorized","error":"no"}\n', { token: "x" });
  assert.equal(error.code, "unauthorized");
  assert.equal(greeting, '{"op":"handshake","version":"1","token":"x"}\n');
});

test("no pool names what was tried, and wrong addresses are refused", async (t) => {
  const missing = path.join(new Folder(t).path, "none");
  const before = { ...process.env };
  delete process.env.REMUDA_ADDR;
  process.env.XDG_RUNTIME_DIR = missing;
  await assert.rejects(connect(), (error) => error.message.includes(`unix:${missing}/remuda/default.sock`)
    && error.message.includes(`/tmp/remuda-${process.getuid()}/default.sock`));
  process.env.REMUDA_ADDR = `unix:${missing}`;
  await assert.rejects(connect(), (error) => !error.message.includes("default.sock"));
  process.env = before;
  for (const address of ["http://x", "unix:", "tcp:host", "shm:name"]) {
    await assert.rejects(connect(address), code("bad_request"));
  }
});

test("tcp", async () => {
  const server = net.createServer((socket) => {
    socket.once("data", () => {
      socket.write('{"ok":true,"data":{"version":"1"}}\n');
      socket.once("data", () => socket.write('{"id":1,"ok":true,"data":{"kind":"result","body":5}}\n'));
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const pool = await connect(`tcp:127.0.0.1:${server.address().port}`);
  assert.equal(await pool.call(4), 5);
  await pool.close();
  server.close();
});
