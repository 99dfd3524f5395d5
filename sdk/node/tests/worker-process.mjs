// A worker process at one end of a socket pair, as a pool would start it, and the pool's end in the test's hand.
//
// Node can make no socket pair, but a child's extra "pipe" in `stdio` is one: it becomes the child's descriptor 3.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const SDK = fileURLToPath(new URL("../remuda.mjs", import.meta.url));

/** Starts `argv`; lines are then JSON values, each way. */
export class Worker {
  constructor(argv, { cwd, env = {} } = {}) {
    this.process = spawn(argv[0], argv.slice(1), {
      cwd,
      env: { ...process.env, REMUDA_FD: "3", REMUDA_WORKER_ID: "w-7", REMUDA_WORKER_SLOT: "1", ...env },
      stdio: ["ignore", "pipe", "pipe", "pipe"],
    });
    this.socket = this.process.stdio[3];
    this.socket.on("error", () => {});
    this.out = "";
    this.err = "";
    this.process.stdout.on("data", (chunk) => { this.out += chunk; });
    this.process.stderr.on("data", (chunk) => { this.err += chunk; });
    this.exit = once(this.process, "close").then(([code]) => code);
    this.lines = createInterface({ input: this.socket })[Symbol.asyncIterator]();
  }

  /** Sends all at once: values as JSON lines, strings and buffers as they are. */
  send(...messages) {
    const parts = messages.map((m) => (typeof m === "string" || Buffer.isBuffer(m) ? m : `${JSON.stringify(m)}\n`));
    this.socket.write(Buffer.concat(parts.map((part) => Buffer.from(part))));
  }

  /** The next line as it is; undefined at the end. */
  async line() {
    return (await this.lines.next()).value;
  }

  /** The next line as a value; undefined at the end. */
  async receive() {
    const line = await this.line();
    return line === undefined ? undefined : JSON.parse(line);
  }

  ask(request) {
    this.send(request);
    return this.receive();
  }

  handshake() {
    return this.ask({ op: "handshake", version: "1" });
  }

  call(body, fields = {}) {
    return this.ask({ op: "call", id: 7, body, ...fields });
  }

  /** Closes the connection; gives the exit status. */
  finish() {
    this.socket.destroy();
    return this.exit;
  }

  async stop() {
    this.process.kill("SIGKILL");
    this.socket.destroy();
    await this.exit;
  }
}

/** A temporary folder with a user's files, which goes when the test ends. */
export class Folder {
  constructor(t, files = {}) {
    this.path = realpathSync(mkdtempSync(path.join(os.tmpdir(), "remuda-node-")));
    t.after(() => rmSync(this.path, { recursive: true, force: true }));
    this.t = t;
    for (const [name, text] of Object.entries(files)) this.write(name, text);
  }

  write(name, text) {
    const file = path.join(this.path, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
    return file;
  }

  /** A worker as `remuda map --node SPEC` starts it, from this folder, with the SDK's text handed over. */
  shim(spec, env) {
    const source = readFileSync(SDK, "utf8");
    const argv = [process.execPath, "--input-type=module", "-e", source, "--", "--shim", spec];
    return this.started(new Worker(argv, { cwd: this.path, env }));
  }

  started(worker) {
    this.t.after(() => worker.stop());
    return worker;
  }
}
