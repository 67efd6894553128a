#!/usr/bin/env node
// The live page in headless Chromium against a running server.
//
//   node run.mjs BINARY [--shots FOLDER]
//
// Exit 0 when all checks hold, 1 when not, 2 for a wrong call. About a minute.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { check, conclude, freePort, launchBrowser, pause, Server, until } from "../../client/e2e/harness.mjs";

const { WebSocket } = createRequire(new URL("../../client/e2e/harness.mjs", import.meta.url))("ws");
const CONNECTIONS = 60;

/** A connection that answers pings, with all that it hears. */
function connect(url) {
  const socket = new WebSocket(url);
  const heard = { socket, messages: [], end: null };
  socket.on("message", (data) => heard.messages.push(String(data)));
  socket.on("error", () => {});
  socket.on("close", (code, reason) => { heard.end = { code, reason: String(reason) }; });
  heard.opened = new Promise((done) => { socket.once("open", () => done(true)); socket.once("close", () => done(false)); });
  return heard;
}

async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const seen = { page, context, errors: [], foreign: [] };
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("console", (message) => {
    // Chromium itself reports each failed attempt while the server is away, and each refusal of the API.
    if (message.type() === "error" && !/^Failed to load resource|net::ERR/.test(message.text())) seen.errors.push(message.text());
  });
  page.on("request", (request) => { if (!["127.0.0.1", ""].includes(new URL(request.url()).hostname)) seen.foreign.push(request.url()); });
  await page.goto(url);
  seen.text = (selector) => page.locator(selector).first().textContent();
  seen.number = async (selector) => Number((await seen.text(selector)).replaceAll(",", "").split(" ")[0]);
  return seen;
}

async function figures(tab) {
  check("the page is live", await until(async () => (await tab.text("#link")) === "live", 5000));
  check("connections are counted", await until(async () => (await tab.number("#active")) === CONNECTIONS, 5000), await tab.text("#active"));
  check("heartbeats a second", await until(async () => (await tab.number("#beats")) > CONNECTIONS / 4, 10_000), await tab.text("#beats"));
  check("round trips", await until(async () => (await tab.number("#rtt")) > 0, 5000), await tab.text("#rtt"));
  check("lateness of timers", await until(async () => (await tab.number("#late")) >= 0, 5000), await tab.text("#late"));
  check("node and version", (await tab.text("#node")) === "e2e" && (await tab.text("#version")).length > 1, `${await tab.text("#node")} ${await tab.text("#version")}`);
  check("the charts have lines", await until(async () => (await tab.page.locator("svg.chart path").first().getAttribute("d"))?.includes("L"), 5000));
}

async function table(tab, connections) {
  await tab.page.click("#search button");
  check("the table shows a page of connections", await until(async () => (await tab.page.locator("#rows tr").count()) === 50, 5000), await tab.text("#found"));
  const first = await tab.page.locator("#rows tr").evaluateAll((rows) => rows.map((row) => row.dataset.id));
  await tab.page.click("#more");
  check("the next page shows the rest", await until(async () => (await tab.page.locator("#rows tr").count()) === CONNECTIONS - 50, 5000));
  const second = await tab.page.locator("#rows tr").evaluateAll((rows) => rows.map((row) => row.dataset.id));
  check("no connection is on both", new Set([...first, ...second]).size === CONNECTIONS);
  check("there is no third page", await tab.page.locator("#more").isHidden());

  const id = second[0];
  await tab.page.fill("#query", id);
  await tab.page.click("#search button");
  check("a connection is found by its id", await until(async () => (await tab.page.locator("#rows tr").count()) === 1 && (await tab.text("#rows td")) === id, 5000));

  await tab.page.click("#rows button >> nth=0");
  await tab.page.fill("#send-text", "hello from the operator ✓");
  await tab.page.click("#send button[type=submit]");
  check("a message is sent", await until(async () => (await tab.text("#send-result")) === "Sent.", 5000), await tab.text("#send-result"));
  check("and arrives at one connection", await until(() => connections.filter((c) => c.messages.includes("hello from the operator ✓")).length === 1, 5000));
  await tab.page.click("#send-close");

  const kick = tab.page.locator("#rows button >> nth=1");
  await kick.click();
  check("the first press only asks", (await kick.textContent()) === "Sure?" && connections.every((c) => !c.end));
  await kick.click();
  check("the second kicks, with 4403", await until(() => connections.filter((c) => c.end?.code === 4403 && c.end.reason === "kicked").length === 1, 5000));
  check("and the page counts it", await until(async () => (await tab.number("#active")) === CONNECTIONS - 1 && /kicked|application/.test(await tab.text("#ends")), 5000), await tab.text("#ends"));
  check("as an end of the last minute", await until(async () => (await tab.number("#ends [data-recent]")) === 1, 5000), await tab.text("#ends"));
  await tab.page.fill("#query", id);
  await tab.page.click("#search button");
  check("who is gone isn't found", await until(async () => /no open connection/.test(await tab.text("#found")), 5000), await tab.text("#found"));
  await tab.page.fill("#query", "nobody");
  await tab.page.click("#search button");
  check("a user without connections has none", await until(async () => (await tab.text("#found")) === "None found.", 5000), await tab.text("#found"));
}

async function restart(tab, server) {
  await server.stop("SIGKILL");
  check("the page tells when the server is gone", await until(async () => (await tab.text("#link")) === "connection lost", 10_000));
  await server.start();
  check("and when it is back", await until(async () => (await tab.text("#link")) === "live" && (await tab.number("#active")) === 0, 15_000));
}

/** Opens /events until the server has enough, and returns what lets go of them. */
async function fillEvents(server) {
  const held = [];
  for (;;) {
    const cut = new AbortController();
    const answer = await fetch(`${server.admin}/events`, { signal: cut.signal });
    if (answer.status !== 200) return { refused: answer.status, leave: () => held.forEach((one) => one.abort()) };
    held.push(cut);
  }
}

/** A page that finds all places taken comes back by itself, unless nobody looks at it. */
async function crowded(browser, server) {
  const crowd = await fillEvents(server);
  check("there is a page too many", crowd.refused === 503, crowd.refused);
  let attempts = 0;
  const tab = await openPage(browser, "about:blank");
  tab.page.on("request", (request) => { attempts += request.url().endsWith("/events"); });
  await tab.page.goto(server.admin);
  check("a page that is refused says so", await until(async () => (await tab.text("#link")) === "connection lost", 5000), await tab.text("#link"));
  check("and asks again", await until(() => attempts >= 3, 10_000), attempts);
  await pause(4000);
  check("less and less often", attempts <= 8, attempts);
  // Headless Chromium takes every page for visible, so the page is told.
  await tab.page.evaluate(() => { Object.defineProperty(document, "hidden", { value: true, configurable: true }); document.dispatchEvent(new Event("visibilitychange")); });
  await pause(500);
  const before = attempts;
  await pause(9000);
  check("and not while nobody looks", attempts === before, attempts - before);
  crowd.leave();
  await tab.page.evaluate(() => { delete document.hidden; document.dispatchEvent(new Event("visibilitychange")); });
  check("it is live when there is a place and somebody looks", await until(async () => (await tab.text("#link")) === "live", 10_000), await tab.text("#link"));
  await tab.context.close();
}

async function otherPages(browser, server) {
  const charts = await openPage(browser, `${server.admin}/debug/statsviz/`);
  const drawn = await until(async () => (await charts.page.locator("svg").count()) > 5, 20_000);
  check("the runtime's charts are drawn", drawn);
  check("they come from the server alone", charts.foreign.length === 0, charts.foreign.join());
  await charts.context.close();
  const demo = await openPage(browser, `${server.admin}/demo?ws=${encodeURIComponent(server.url)}`);
  check("the demonstration is still there", await until(async () => (await demo.text("#talking .state")) === "open", 10_000));
  await demo.context.close();
}

/** Another server, with a token that a browser asks for, and an alarm at any load at all. */
async function guarded(browser, binary, shots) {
  const folder = await mkdtemp(join(tmpdir(), "pulsewheel-"));
  const file = join(folder, "token");
  await writeFile(file, "a-token-of-24-characters\n");
  const server = new Server(binary, await freePort(), await freePort(), ["--admin-token-file", file, "--overload-load-factor", "0.00001"]);
  try {
    await server.start();
    const refused = await fetch(`${server.admin}/`);
    check("without the token there is no page", refused.status === 401, refused.status);
    const httpCredentials = { username: "operator", password: "a-token-of-24-characters" };
    const tab = await openPage(browser, server.admin, { httpCredentials });
    check("with the token as password it is live", await until(async () => (await tab.text("#link")) === "live", 5000));
    check("overload is told with its reason", await until(async () => (await tab.text("#state")) === "overloaded" && /load1/.test(await tab.text("#reasons")), 10_000), await tab.text("#reasons"));
    await tab.page.click("#search button");
    check("the API takes it too", await until(async () => (await tab.text("#found")) === "None found.", 5000), await tab.text("#found"));
    if (shots) await tab.page.screenshot({ path: join(shots, "overloaded.png"), fullPage: true });
    await tab.context.close();
  } finally {
    await server.stop();
    await rm(folder, { recursive: true });
  }
}

async function screenshots(browser, server, shots) {
  const sizes = { desktop: { width: 1280, height: 900 }, phone: { width: 375, height: 812 } };
  for (const [name, viewport] of Object.entries(sizes)) {
    for (const colorScheme of ["light", "dark"]) {
      const tab = await openPage(browser, server.admin, { viewport, colorScheme });
      await until(async () => (await tab.text("#link")) === "live", 5000);
      await tab.page.click("#search button");
      await pause(6000);
      const wide = await tab.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      check(`${name}, ${colorScheme}: nothing sticks out sideways`, wide <= 0, `${wide} px`);
      if (shots) await tab.page.screenshot({ path: join(shots, `${name}-${colorScheme}.png`), fullPage: true });
      await tab.context.close();
    }
  }
}

async function main() {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { shots: { type: "string" } } });
  if (positionals.length !== 1) {
    console.error("usage: node run.mjs BINARY [--shots FOLDER]");
    return 2;
  }
  if (values.shots) await mkdir(values.shots, { recursive: true });
  const binary = resolve(positionals[0]);
  const server = new Server(binary, await freePort(), await freePort(), ["--node-name", "e2e", "--heartbeat-interval", "2s", "--heartbeat-timeout", "6s"]);
  const browser = await launchBrowser();
  try {
    await server.start();
    const connections = Array.from({ length: CONNECTIONS }, () => connect(server.url));
    const open = await Promise.all(connections.map((c) => c.opened));
    check("connections are open", open.every(Boolean));
    const tab = await openPage(browser, server.admin);
    await figures(tab);
    await screenshots(browser, server, values.shots);
    await table(tab, connections);
    await otherPages(browser, server);
    await crowded(browser, server);
    await restart(tab, server);
    check("no fault in the page, no request to another host", tab.errors.length + tab.foreign.length === 0, [...tab.errors, ...tab.foreign].join("; "));
    await tab.context.close();
    await guarded(browser, binary, values.shots);
  } finally {
    await browser.close();
    await server.end();
  }
  return conclude();
}

process.exitCode = await main();
