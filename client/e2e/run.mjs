#!/usr/bin/env node
// End to end: the shipped client, another implementation's client (ws) and the
// shipped page in headless Chromium against a running server.
//
//   node run.mjs BINARY [--static] [--no-browser] [--shots FOLDER]
//
// BINARY is pulsewheel, or fake.mjs. --static serves the page from here instead of
// asking the server's admin listener for it, as is always done for fake.mjs. Exit 0
// when all checks hold, 1 when not, 2 for a wrong call. About a minute and a half.

import { mkdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import WebSocket from "ws";
import { PulsewheelClient } from "../pulsewheel.js";
import { DemoTab, Server, check, conclude, folder, freePort, launchBrowser, pause, servePage, until } from "./harness.mjs";

const INTERVAL_MS = 2_000;
const TIMEOUT_MS = 6_000;
const IDLE_MS = 2 * TIMEOUT_MS + 1_000;
/** Beats that must have come in IDLE_MS: the first may be early or late by its spreading. */
const BEATS_MIN = Math.floor(IDLE_MS / INTERVAL_MS) - 2;
const MODES = ["ping", "text", "none"];

/** A connection of the package ws, with all that it hears. */
function raw(url, options = {}) {
  const socket = new WebSocket(url, options);
  const seen = { socket, start: performance.now(), pings: 0, messages: [], end: null };
  socket.on("open", () => { seen.openedAt = performance.now(); });
  socket.on("ping", () => { seen.pings++; });
  socket.on("message", (data, binary) => seen.messages.push(binary ? data : String(data)));
  socket.on("error", (error) => { seen.error = error.message; });
  socket.on("close", (code, reason) => { seen.end = { code, reason: String(reason), after: Math.round(performance.now() - seen.start), open: Math.round(performance.now() - seen.openedAt) }; });
  seen.opened = new Promise((done) => { socket.once("open", () => done(true)); socket.once("close", () => done(false)); });
  return seen;
}

async function echoes(seen, text) {
  seen.socket.send(text);
  return until(() => seen.messages.includes(text), 2000);
}

// ---- idle past several heartbeats and more than twice the timeout, in each mode ----

async function rawPing(url) {
  const seen = raw(url);
  await seen.opened;
  await pause(IDLE_MS);
  check("ws, server's default mode: pings came, connection lives", !seen.end && seen.pings >= BEATS_MIN, `${seen.pings} pings in ${IDLE_MS} ms`);
  check("ws, default mode: no text of the protocol unasked", seen.messages.length === 0, seen.messages.join());
  check("ws, default mode: echo", await echoes(seen, "still here"));
  seen.socket.close(1000);
  await until(() => seen.end, 5000);
  check("ws: a normal close is answered with its own code", seen.end?.code === 1000, JSON.stringify(seen.end));
}

async function rawText(url) {
  const seen = raw(`${url}?heartbeat=text`);
  seen.socket.on("message", (data) => { if (JSON.parse(data).type === "heartbeat") seen.socket.send('{"type":"heartbeat_ack"}'); });
  await seen.opened;
  await pause(IDLE_MS);
  const [hello, ...beats] = seen.messages.map((text) => JSON.parse(text));
  check("ws, text: hello comes first and tells what was granted",
    hello?.type === "hello" && hello.interval_ms === INTERVAL_MS && hello.timeout_ms === TIMEOUT_MS && /^[0-9a-f]{16}$/.test(hello.id), JSON.stringify(hello));
  check("ws, text: beats came and the answers kept it alive", !seen.end && beats.length >= BEATS_MIN && beats.every((beat) => beat.type === "heartbeat"), `${beats.length} beats`);
  check("ws, text: answers are consumed, not echoed", !seen.messages.some((text) => text.includes("heartbeat_ack")));
  seen.socket.terminate();
}

async function rawNone(url) {
  const seen = raw(`${url}?heartbeat=none`);
  await seen.opened;
  let sent = 0;
  const stamps = [1.5, "a string", 12345678901234, 0];
  const timer = setInterval(() => { seen.socket.send(JSON.stringify({ type: "heartbeat", ts: stamps[sent % stamps.length] })); sent++; }, INTERVAL_MS);
  await pause(IDLE_MS);
  clearInterval(timer);
  await pause(300);
  const want = Array.from({ length: sent }, (_, i) => stamps[i % stamps.length]);
  const got = seen.messages.map((text) => JSON.parse(text));
  check("ws, none, client beats: each acknowledged with its ts unchanged, nothing else sent",
    !seen.end && seen.pings === 0 && sent > 3 && JSON.stringify(got) === JSON.stringify(want.map((ts) => ({ type: "heartbeat_ack", ts }))), `${got.length} of ${sent}`);
  seen.socket.terminate();
}

async function rawMute(url, name, query, options) {
  const seen = raw(url + query, options);
  await seen.opened;
  await until(() => seen.end, TIMEOUT_MS + 4000);
  check(`ws, ${name}, mute: expired with 4408, not early, soon after the timeout`,
    // The server's clock started somewhere between the attempt and the opening.
    seen.end?.code === 4408 && seen.end.after >= TIMEOUT_MS && seen.end.open < TIMEOUT_MS + 500, JSON.stringify(seen.end));
}

async function clientIdle(url, mode, heartbeatInterval) {
  const client = new PulsewheelClient(url, { WebSocket, heartbeatMode: mode, heartbeatInterval });
  await until(() => client.state === "open", 5000);
  await pause(IDLE_MS);
  const { acks, beatsSent, opened, serverBeats } = client.counts;
  const name = `client in Node, ${mode}, ${heartbeatInterval ? `own beats every ${heartbeatInterval} ms` : "no beats of its own"}`;
  const beats = heartbeatInterval ? acks >= BEATS_MIN && acks === beatsSent && client.rtt > 0 : beatsSent === 0;
  const theirs = heartbeatInterval || mode !== "text" || serverBeats >= BEATS_MIN;
  check(name, client.state === "open" && opened === 1 && beats && theirs, `${acks} of ${beatsSent} acknowledged, ${serverBeats} from the server`);
  client.close();
  check(`${name}: closed, no timer`, client.timers.length === 0 && await until(() => client.state === "closed", 3000));
}

async function tabIdle(browser, page, url, mode) {
  const tab = await DemoTab.open(browser, page, url, mode);
  check(`Chromium, ${mode}: open`, await until(() => tab.allOpen(), 5000));
  await pause(IDLE_MS);
  const acks = await tab.count("talking", "acks");
  const beats = await tab.count("talking", "beatsSent");
  const serverBeats = await tab.count("listening", "serverBeats");
  const once = (await tab.count("talking", "opened")) === 1 && (await tab.count("listening", "opened")) === 1;
  check(`Chromium, ${mode}: idle past the timeout, beats both ways`,
    once && await tab.allOpen() && acks >= 2 && acks === beats && serverBeats >= BEATS_MIN, `${acks} of ${beats} acknowledged, ${serverBeats} from the server`);
  await tab.page.fill("#text", `echo of ${mode}`);
  await tab.page.click("#echo button");
  check(`Chromium, ${mode}: echo`, await until(async () => (await tab.text("#log")).includes(`received echo of ${mode}, back after`), 2000));
  await tabClose(tab, `Chromium, ${mode}`);
  await tab.context.close();
}

async function tabClose(tab, name) {
  const before = await tab.timersShown();
  check(`${name}: the timers shown are those that run`, before > 0 && before === await tab.timersCounted(), `${before}`);
  await tab.page.click("#disconnect");
  const zero = await until(async () => (await tab.timersShown()) === 0 && (await tab.timersCounted()) === 0, 1000);
  check(`${name}: closing leaves no timer, by the page and by an independent count`, zero);
  await until(async () => (await tab.state("talking")) === "closed", 3000);
  const sent = tab.sent;
  await pause(5500);
  check(`${name}: nothing is sent after the close`, sent > 0 && tab.sent === sent && (await tab.state("listening")) === "closed");
  check(`${name}: no fault in the page, no request to another host`, tab.errors.length + tab.foreign.length === 0, [...tab.errors, ...tab.foreign].join("; "));
}

// ---- the server ends, is killed, is frozen ----

async function comeback(server, client, tab, name, harm, heal) {
  const opened = client.counts.opened;
  const tabOpened = await tab?.count("talking", "opened");
  await harm();
  // A beat is at most 5 s away and its answer awaited for 10 s; on a busy machine, where timers come late, asked for twice.
  const left = await until(async () => client.state !== "open" && (!tab || (await tab.state("talking")) !== "open"), 40_000);
  check(`${name}: noticed by the client${tab ? " and the page" : ""}`, left);
  await pause(500);
  const from = performance.now();
  await heal();
  const back = () => client.state === "open" && client.counts.opened > opened;
  const tabBack = async () => !tab || ((await tab.allOpen()) && (await tab.count("talking", "opened")) > tabOpened);
  const returned = await until(async () => back() && await tabBack(), 40_000);
  check(`${name}: both are back`, returned, `${Math.round(performance.now() - from)} ms after the server was`);
  const acks = client.counts.acks;
  const tabAcks = await tab?.count("talking", "acks");
  const beating = await until(async () => client.counts.acks > acks && (!tab || (await tab.count("talking", "acks")) > tabAcks), 8000);
  check(`${name}: heartbeats are acknowledged again`, beating);
}

async function endings(server, browser, page) {
  const timersBefore = activeTimers();
  const ends = [];
  const client = new PulsewheelClient(server.url, { WebSocket, heartbeatInterval: 1000, ackTimeout: 2000, connectTimeout: 3000 });
  client.on("close", (end) => ends.push(end));
  const tab = browser && await DemoTab.open(browser, page, server.url, "text");
  await until(async () => client.state === "open" && (!tab || await tab.allOpen()), 5000);

  await comeback(server, client, tab, "SIGTERM and restart", async () => check("SIGTERM: exit 0", await server.stop() === 0), async () => {
    // What is sent while the server is away goes out when it is back.
    client.send("kept while away");
    await server.start();
  });
  check("SIGTERM: closed with 1012", ends[0]?.code === 1012, JSON.stringify(ends[0]));
  const kept = client.queued === 0 && client.counts.messagesOut === 1;
  check("a message sent while away arrived", kept && await until(() => client.counts.messagesIn === 1, 2000));
  await comeback(server, client, tab, "SIGKILL and restart", () => server.stop("SIGKILL"), () => server.start());
  await comeback(server, client, tab, "SIGSTOP and SIGCONT", () => server.freeze(), () => server.thaw());
  check("SIGSTOP: found silent by a missing answer", ends.some((end) => end.code === 4408 && end.reason === "heartbeat-timeout"), ends.map((end) => end.code).join());

  if (tab) await tabClose(tab, "Chromium after all that");
  client.close();
  await until(() => client.state === "closed", 3000);
  check("client in Node: closed, no timer of its own", client.timers.length === 0);
  // Sockets given up to a frozen server are ended hard, so nothing lingers in ws either.
  check("client in Node: the process holds no timer more than before", await until(() => activeTimers() <= timersBefore, 5000), `${activeTimers()}, before ${timersBefore}`);
}

const activeTimers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;

async function screenshots(browser, page, url, target) {
  await mkdir(target, { recursive: true });
  const sizes = { desktop: { width: 1280, height: 900 }, phone: { width: 375, height: 812 } };
  for (const [name, viewport] of Object.entries(sizes)) {
    for (const colorScheme of ["light", "dark"]) {
      const tab = await DemoTab.open(browser, page, url, "text", { viewport, colorScheme });
      await pause(5500);
      const wide = await tab.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      check(`page, ${name}, ${colorScheme}: nothing sticks out sideways`, wide <= 0, `${wide} px`);
      await tab.page.screenshot({ path: join(target, `${name}-${colorScheme}.png`), fullPage: true });
      await tab.context.close();
    }
  }
}

// ---- the run ----

/** The page as the admin listener serves it, checked against the shipped files. */
async function adminPage(server) {
  const script = await fetch(`${server.admin}/client.js`);
  const shipped = await readFile(new URL("pulsewheel.js", folder), "utf8");
  check("admin listener: /client.js is the shipped file, as JavaScript",
    script.status === 200 && await script.text() === shipped && /javascript/.test(script.headers.get("content-type")), `${script.status} ${script.headers.get("content-type")}`);
  for (const path of ["/demo", "/"]) {
    const answer = await fetch(server.admin + path);
    if (answer.status === 200 && (await answer.text()).includes('from "./client.js"')) return server.admin + path;
  }
  check("admin listener: the page is at /demo or /", false);
  return null;
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { static: { type: "boolean" }, "no-browser": { type: "boolean" }, shots: { type: "string" } },
  });
  if (positionals.length !== 1) {
    console.error("usage: node run.mjs BINARY [--static] [--no-browser] [--shots FOLDER]");
    return 2;
  }
  const own = values.static || positionals[0].endsWith(".mjs") ? await servePage() : null;
  const server = new Server(resolve(positionals[0]), await freePort(), await freePort(), [
    "--heartbeat-interval", `${INTERVAL_MS / 1000}s`, "--heartbeat-timeout", `${TIMEOUT_MS / 1000}s`, "--stats-interval", "2s",
    ...(own ? ["--allowed-origins", own.origin] : []),
  ]);
  let browser = null;
  try {
    await server.start();
    const health = await fetch(server.health).then((answer) => answer.status, (error) => error.message);
    check("GET /healthz beside the WebSocket", health === 200, health);
    const page = own ? `${own.origin}/demo` : await adminPage(server);
    if (!values["no-browser"] && page) browser = await launchBrowser();
    const { url } = server;
    await Promise.all([
      rawPing(url), rawText(url), rawNone(url),
      rawMute(url, "ping", "", { autoPong: false }), rawMute(url, "text", "?heartbeat=text"), rawMute(url, "none", "?heartbeat=none"),
      ...MODES.map((mode) => clientIdle(url, mode, 1500)), clientIdle(url, "text", 0), clientIdle(url, "ping", 0),
      ...(browser ? MODES.map((mode) => tabIdle(browser, page, url, mode)) : []),
    ]);
    if (browser && values.shots) await screenshots(browser, page, url, values.shots);
    await endings(server, browser, page);
    const line = server.log.split("\n").filter((text) => /msg="?connections"?/.test(text)).at(-1);
    if (line) console.log(`the server's last stats line: ${line}`);
  } finally {
    await browser?.close();
    own?.close();
    await server.end();
  }
  return conclude();
}

process.exitCode = await main();
