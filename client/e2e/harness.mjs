// What the scripts stand on: the server as a child process, a page server, a browser,
// and checks that go on after a failure so that one run tells of all.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { connect, createServer as createTCPServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import WebSocket from "ws";

export const folder = new URL("../", import.meta.url);
export const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
/** Milliseconds since 1970 that no adjustment moves: the same in every process. */
export const now = () => performance.timeOrigin + performance.now();

/** Waits until the condition holds, looking every 25 ms; false when time is up. */
export async function until(condition, ms) {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) return false;
    await pause(25);
  }
  return true;
}

const results = [];

/** Notes and prints one result; the detail says what was seen. */
export function check(name, holds, detail = "") {
  results.push(Boolean(holds));
  console.log(`${holds ? "ok  " : "FAIL"} ${name}${detail === "" ? "" : `: ${detail}`}`);
}

export const failures = () => results.filter((holds) => !holds).length;

/** Prints how many checks hold and answers the exit code. */
export function conclude() {
  console.log(`${results.length - failures()} of ${results.length} checks hold`);
  return failures() ? 1 : 0;
}

/** Counts of times in bins of widthMs from 0 on; what lies beyond the last bin is left out. */
export function histogram(times, widthMs, bins) {
  const counts = new Array(bins).fill(0);
  for (const time of times) {
    const bin = Math.floor(time / widthMs);
    if (bin >= 0 && bin < bins) counts[bin]++;
  }
  return counts;
}

export async function freePort() {
  const listener = createTCPServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  await once(listener, "close");
  return port;
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => { socket.destroy(); resolve(true); });
    socket.once("error", () => resolve(false));
  });
}

export class Server {
  constructor(binary, port, adminPort, options) {
    this.command = binary.endsWith(".mjs") ? [process.execPath, binary] : [binary];
    this.args = ["serve", "--echo", "--listen", `127.0.0.1:${port}`, "--admin-listen", `127.0.0.1:${adminPort}`, ...options];
    this.port = port;
    this.url = `ws://127.0.0.1:${port}/ws`;
    this.health = `http://127.0.0.1:${port}/healthz`;
    this.admin = `http://127.0.0.1:${adminPort}`;
    this.log = "";
  }

  async start() {
    this.child = spawn(this.command[0], [...this.command.slice(1), ...this.args], { stdio: ["ignore", "inherit", "pipe"] });
    this.child.stderr.setEncoding("utf8").on("data", (text) => { this.log = (this.log + text).slice(-1_000_000); });
    this.exit = once(this.child, "exit");
    const up = await until(() => this.child.exitCode !== null || listens(this.port), 10_000);
    if (!up || this.child.exitCode !== null) throw new Error(`the server doesn't start:\n${this.log}`);
  }

  /** Ends it and answers its exit code, or the signal that it needed. */
  async stop(signal = "SIGTERM") {
    this.child.kill("SIGCONT");
    this.child.kill(signal);
    const hard = setTimeout(() => this.child.kill("SIGKILL"), 40_000);
    const [code, by] = await this.exit;
    clearTimeout(hard);
    return code ?? by;
  }

  /** Ends it if it runs, and shows its last words if a check failed. */
  async end() {
    if (this.child?.exitCode === null && this.child.signalCode === null) await this.stop();
    if (failures()) console.error(`the server's log ends with:\n${this.log.slice(-3000)}`);
  }

  freeze() { this.child.kill("SIGSTOP"); }
  thaw() { this.child.kill("SIGCONT"); }
}

/** What the page is allowed: its own inline script and style, client.js, and WebSockets. */
const PAGE_POLICY = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; connect-src ws: wss:; img-src data:; form-action 'none'";

/** Serves the shipped page and client, as the admin listener does. */
export async function servePage() {
  const files = { "/demo": ["demo.html", "text/html; charset=utf-8"], "/client.js": ["pulsewheel.js", "text/javascript; charset=utf-8"] };
  const server = createServer(async (request, response) => {
    const [file, type] = files[new URL(request.url, "http://x").pathname] ?? [];
    if (!file) { response.writeHead(404).end(); return; }
    response.writeHead(200, { "Content-Type": type, "Content-Security-Policy": PAGE_POLICY }).end(await readFile(new URL(file, folder)));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => { server.closeAllConnections(); server.close(); } };
}

/** What Chromium is started with, by whomever. */
function browserArguments() {
  const root = process.getuid?.() === 0;
  return [
    ...(root ? ["--no-sandbox"] : []), // Chromium refuses its sandbox to root
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ];
}

const browserPath = process.env.CHROMIUM ?? "/usr/bin/chromium";

export function launchBrowser() {
  return chromium.launch({ executablePath: browserPath, headless: true, args: browserArguments() });
}

/**
 * Tabs of a browser that is spoken with directly: playwright keeps all of its pages
 * visible and their timers unthrottled, and here hidden ones are wanted.
 */
export class Tabs {
  #id = 0;
  #answers = new Map();

  static async launch(args) {
    const tabs = new Tabs();
    tabs.folder = await mkdtemp(join(tmpdir(), "pulsewheel-tabs-"));
    tabs.child = spawn(browserPath, ["--headless", ...browserArguments(), ...args, `--user-data-dir=${tabs.folder}`, "--remote-debugging-port=0", "about:blank"],
      { stdio: ["ignore", "ignore", "pipe"] });
    tabs.exit = once(tabs.child, "exit");
    let log = "";
    tabs.child.stderr.setEncoding("utf8").on("data", (text) => { log += text; });
    const found = await until(() => /DevTools listening on (ws:\S+)/.test(log), 20_000);
    if (!found) throw new Error(`the browser doesn't start:\n${log}`);
    tabs.socket = new WebSocket(/DevTools listening on (ws:\S+)/.exec(log)[1]);
    await once(tabs.socket, "open");
    tabs.socket.on("message", (text) => { const answer = JSON.parse(text); tabs.#answers.get(answer.id)?.(answer); });
    return tabs;
  }

  #send(method, params, sessionId) {
    const id = ++this.#id;
    return new Promise((done, failed) => {
      this.#answers.set(id, ({ result, error }) => (error ? failed(new Error(`${method}: ${error.message}`)) : done(result)));
      this.socket.send(JSON.stringify({ id, method, params, sessionId }));
    });
  }

  async open(url) {
    const { targetId } = await this.#send("Target.createTarget", { url });
    const { sessionId } = await this.#send("Target.attachToTarget", { targetId, flatten: true });
    return {
      activate: () => this.#send("Target.activateTarget", { targetId }),
      // As browsers freeze hidden tabs to save memory: no script runs, whatever happens.
      freeze: () => this.#send("Page.setWebLifecycleState", { state: "frozen" }, sessionId),
      thaw: () => this.#send("Page.setWebLifecycleState", { state: "active" }, sessionId),
      evaluate: async (expression) => (await this.#send("Runtime.evaluate", { expression, returnByValue: true }, sessionId)).result.value,
    };
  }

  async close() {
    this.socket.close();
    this.child.kill();
    await this.exit;
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** The demonstration page in a tab of its own, with a count of timers that isn't the client's. */
export class DemoTab {
  static async open(browser, page, ws, mode, contextOptions = {}) {
    const tab = new DemoTab();
    tab.context = await browser.newContext(contextOptions);
    tab.page = await tab.context.newPage();
    tab.errors = [];
    tab.foreign = [];
    tab.sent = 0;
    tab.page.on("pageerror", (error) => tab.errors.push(error.message));
    tab.page.on("console", (message) => {
      // Chromium itself reports each failed attempt while the server is away.
      if (message.type() === "error" && !message.text().startsWith("WebSocket connection to")) tab.errors.push(message.text());
    });
    tab.page.on("request", (request) => { if (new URL(request.url()).hostname !== "127.0.0.1") tab.foreign.push(request.url()); });
    tab.page.on("websocket", (socket) => socket.on("framesent", () => { tab.sent++; }));
    await tab.page.addInitScript(countTimers);
    await tab.page.goto(`${page}?ws=${encodeURIComponent(ws)}&mode=${mode}`);
    return tab;
  }

  text(selector) { return this.page.locator(selector).first().textContent(); }
  async count(lane, name) { return Number(await this.text(`#${lane} [data-count="${name}"]`)); }
  state(lane) { return this.text(`#${lane} .state`); }
  async allOpen() { return (await this.state("talking")) === "open" && (await this.state("listening")) === "open"; }
  timersShown() { return this.text("#timers").then((text) => Number(/timers running: (\d+)/.exec(text)[1])); }
  timersCounted() { return this.page.evaluate(() => globalThis.liveTimers.size); }
}

/** Runs in the page before any of its scripts. */
function countTimers() {
  const live = new Set();
  globalThis.liveTimers = live;
  for (const [set, clear, once] of [["setTimeout", "clearTimeout", true], ["setInterval", "clearInterval", false]]) {
    const [setReal, clearReal] = [globalThis[set].bind(globalThis), globalThis[clear].bind(globalThis)];
    globalThis[set] = (callback, ...rest) => {
      const handle = setReal((...args) => { if (once) live.delete(handle); callback(...args); }, ...rest);
      live.add(handle);
      return handle;
    };
    globalThis[clear] = (handle) => { live.delete(handle); clearReal(handle); };
  }
}
