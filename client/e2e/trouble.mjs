#!/usr/bin/env node
// End to end, what goes wrong in the field: a network that is cut, a browser that is
// told to be offline, a tab that is hidden, a restart that announces slots, and tokens.
//
//   node trouble.mjs BINARY TOKENS [--no-browser]
//
// BINARY is pulsewheel, TOKENS the program in tokens/. Exit 0 when all checks hold, 1
// when not, 2 for a wrong call. About a minute.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import WebSocket from "ws";
import { PulsewheelClient } from "../pulsewheel.js";
import { DemoTab, Server, Tabs, check, conclude, freePort, launchBrowser, pause, until } from "./harness.mjs";

const INTERVAL_MS = 2_000;
const TIMEOUT_MS = 6_000;

async function ownServer(binary) {
  const server = new Server(binary, await freePort(), await freePort(), [
    "--heartbeat-interval", `${INTERVAL_MS / 1000}s`, "--heartbeat-timeout", `${TIMEOUT_MS / 1000}s`, "--stats-interval", "0", "--compression",
    "--allowed-origins", "*",
  ]);
  await server.start();
  return server;
}

/** A network between client and server. While it is cut it swallows every byte, in both directions, and tells nobody. */
class Network {
  #pairs = new Set();
  #cut = false;

  static async to(port) {
    const network = new Network();
    network.listener = createServer((near) => network.#join(near, port)).listen(0, "127.0.0.1");
    await once(network.listener, "listening");
    network.url = `ws://127.0.0.1:${network.listener.address().port}/ws`;
    return network;
  }

  #join(near, port) {
    const far = connect(port, "127.0.0.1");
    const pair = [near, far];
    this.#pairs.add(pair);
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on("data", (bytes) => { if (!this.#cut) to.write(bytes); });
      from.on("end", () => { if (!this.#cut) to.end(); });
      from.on("error", () => { if (!this.#cut) to.destroy(); });
    }
  }

  cut() { this.#cut = true; }

  /** Lets bytes through again; what was under way is forgotten, as a NAT forgets. */
  heal() {
    for (const pair of this.#pairs) for (const end of pair) end.destroy();
    this.#pairs.clear();
    this.#cut = false;
  }

  close() {
    this.heal();
    this.listener.close();
  }
}

async function cutNetwork(server, browser, page) {
  const network = await Network.to(server.port);
  const silences = [];
  const client = new PulsewheelClient(network.url, { WebSocket, heartbeatInterval: 1000, ackTimeout: 2000, connectTimeout: 2000, reconnectDelay: 500 });
  client.on("silent", (event) => silences.push(event));
  const tab = browser && await DemoTab.open(browser, page, network.url, "text");
  check("through a relay: open", await until(async () => client.state === "open" && (!tab || await tab.allOpen()), 5000));

  network.cut();
  const from = performance.now();
  const noticed = await until(() => client.state !== "open", 6000);
  check("network cut: the client finds the server silent", noticed && silences.length === 1, `${Math.round(performance.now() - from)} ms`);
  // The page beats every 5 s and awaits the answer for 10 s.
  if (tab) check("network cut: so does the page", await until(async () => (await tab.state("talking")) !== "open", 20_000), `${Math.round(performance.now() - from)} ms`);
  check("network cut: attempts into it are given up and repeated", await until(() => client.state === "waiting", 5000) && client.counts.opened === 1);

  network.heal();
  const back = await until(async () => client.state === "open" && (!tab || await tab.allOpen()), 40_000);
  check("network healed: all are back", back && client.counts.opened === 2);
  const { acks } = client.counts;
  check("network healed: heartbeats are acknowledged", await until(() => client.counts.acks > acks, 5000));
  const { closed_by_reason: closed } = await (await fetch(`${server.admin}/api/v1/stats`)).json();
  check("network cut: the server lost nobody by a fault of the protocol", closed.protocol === 0, JSON.stringify(closed));
  client.close();
  await tab?.context.close();
  network.close();
}

async function offline(server, browser, page) {
  const tab = await DemoTab.open(browser, page, server.url, "text");
  await until(() => tab.allOpen(), 5000);
  await tab.page.evaluate(() => {
    globalThis.news = [];
    for (const name of ["online", "offline"]) addEventListener(name, () => globalThis.news.push(name));
  });
  const opened = await tab.count("talking", "opened");
  // This connection has no beats of its own, so what it sends is its answer to the news.
  const asked = (times) => until(async () => (await tab.count("listening", "beatsSent")) === times, 1000);
  await tab.context.setOffline(true);
  check("offline: the client asks the server at once, and doesn't take the browser's word", await asked(1) && await tab.allOpen());
  await tab.context.setOffline(false);
  check("online: it asks again", await asked(2));
  check("offline and online again: the browser said so", await until(async () => (await tab.page.evaluate(() => globalThis.news.join())) === "offline,online", 3000));
  const open = await until(() => tab.allOpen(), 10_000);
  const acks = await tab.count("talking", "acks");
  check("offline and online again: open and beating", open && await until(async () => (await tab.count("talking", "acks")) > acks, 8000),
    `opened ${opened}, then ${await tab.count("talking", "opened")} times`);
  await tab.context.close();
}

/** A client that beats every second, in a tab that can be hidden. */
async function clientTab(browser, server, mode) {
  const tab = await browser.open(`${server.admin}/healthz`); // an empty page of the origin that has /client.js
  const open = () => tab.evaluate("globalThis.client?.state === 'open'");
  await until(() => tab.evaluate("location.protocol === 'http:' && document.readyState === 'complete'"), 5000);
  await tab.evaluate(`import("/client.js").then(({ PulsewheelClient }) => {
    globalThis.ends = [];
    globalThis.client = new PulsewheelClient("${server.url}", { heartbeatMode: "${mode}", heartbeatInterval: 1000 });
    client.on("close", ({ code }) => ends.push(code));
  }); 0`);
  check(`tab, ${mode}: open`, await until(open, 5000));
  const counts = async () => JSON.parse(await tab.evaluate("JSON.stringify(client.counts)"));
  return { ...tab, mode, open, counts, ends: () => tab.evaluate("ends.join()") };
}

/**
 * Waits until the browser has held a tab's own beats back for one and a half times the server's timeout. It does so for all but one moment
 * of a minute, once its grace is over; when that is depends on how busy the machine is, so it is seen and not assumed.
 */
async function longSilence(tab, limitMs) {
  let { beatsSent, serverBeats: heard } = await tab.counts();
  let since = performance.now();
  let longest = 0;
  const held = await until(async () => {
    const counts = await tab.counts();
    if (counts.beatsSent !== beatsSent) {
      ({ beatsSent, serverBeats: heard } = counts);
      since = performance.now();
    }
    longest = Math.max(longest, performance.now() - since);
    return longest > 1.5 * TIMEOUT_MS; // the server would have expired who answers nothing
  }, limitMs);
  return { held, longest, heard };
}

async function beatsWhenShown(tab, name) {
  await tab.activate();
  const { acks } = await tab.counts();
  check(`${name}: beats on when it is shown`, await until(async () => (await tab.open()) && (await tab.counts()).acks > acks + 1, 8000));
}

/**
 * A hidden tab's timers are throttled, to one wake-up a minute after a grace period,
 * which is cut short here; some hidden tabs are frozen altogether.
 */
async function hidden(binary, server) {
  const browser = await Tabs.launch(["--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1"]);
  const alone = await ownServer(binary); // for the frozen tab, so that its connection is the only one there
  try {
    const [ping, text, none, frozen] = [await clientTab(browser, server, "ping"), await clientTab(browser, server, "text"),
      await clientTab(browser, server, "none"), await clientTab(browser, alone, "ping")];
    const other = await browser.open("about:blank");
    await other.activate();
    const states = () => Promise.all([ping, text, none, frozen].map((tab) => tab.evaluate("document.visibilityState")));
    check("all tabs are hidden", await until(async () => (await states()).every((state) => state === "hidden"), 3000));
    await frozen.freeze();
    const from = performance.now();
    const silences = await Promise.all([ping, text].map((tab) => longSilence(tab, 130_000)));
    for (const [i, tab] of [ping, text].entries()) {
      const { opened, serverBeats } = await tab.counts();
      const { held, longest, heard } = silences[i];
      check(`hidden tab, ${tab.mode}: no beat of its own for longer than the timeout, and still the same connection`,
        held && opened === 1 && await tab.open(), `${Math.round(longest)} ms silent, ${Math.round(performance.now() - from)} ms hidden, opened ${opened} times`);
      if (tab.mode === "text") check("hidden tab, text: the server's heartbeats were answered meanwhile", serverBeats - heard >= 2, `${serverBeats - heard}`);
    }
    // The control: where only the page's own timer keeps a connection alive, throttling ends it. When depends on where in the
    // browser's minute the tab was hidden, and on how busy the machine is; a minute has room for it.
    const expired = await until(async () => /^4408/.test(await none.ends()), 60_000);
    check("hidden tab, none: expired, since its own beats came too late", expired, await none.ends());
    const { connections } = await (await fetch(`${alone.admin}/api/v1/connections`)).json();
    check("frozen tab: the browser answers pings for it", connections.length === 1 && connections[0].last_heard_ms < INTERVAL_MS + 500, JSON.stringify(connections));
    await frozen.thaw();
    // Chromium gives up the sockets of a page that was frozen when it thaws.
    for (const tab of [ping, text, none]) await beatsWhenShown(tab, `hidden tab, ${tab.mode}`);
    await beatsWhenShown(frozen, "frozen tab");
    check("frozen tab: what Chromium ended at the thaw came back", (await frozen.counts()).opened <= 2, await frozen.ends());
  } finally {
    await browser.close();
    await alone.stop();
  }
}

/** A restart hands out slots, one a second here: nobody comes before his. */
async function slots(binary, browser, page) {
  const server = new Server(binary, await freePort(), await freePort(), ["--reconnect-rate", "1", "--allowed-origins", "*"]);
  await server.start();
  const clients = Array.from({ length: 4 }, () => {
    const client = new PulsewheelClient(server.url, { WebSocket });
    const fate = { client };
    client.on("close", (event) => { fate.after ??= /^restart; retry-after=(\d+)$/.exec(event.reason)?.[1]; fate.code ??= event.code; fate.closed ??= performance.now(); });
    client.on("state", ({ state }) => { if (fate.closed && state === "connecting") fate.tried ??= performance.now() - fate.closed; });
    client.on("open", () => { if (fate.closed) fate.back = true; });
    return fate;
  });
  await until(() => clients.every(({ client }) => client.state === "open"), 5000);
  const context = await browser?.newContext();
  const fateOfPage = context && await pageFate(context, page, server.url);
  check("SIGTERM: exit 0", await server.stop() === 0);
  await server.start();
  check("SIGTERM: everybody came back", await until(() => clients.every(({ back }) => back), 30_000));
  const fates = fateOfPage ? [...clients, { ...await fateOfPage(), page: true }] : clients;
  const told = fates.map(({ after }) => Number(after)).sort();
  check("SIGTERM: 1012, and a slot for each", fates.every(({ code }) => code === 1012) && told.every((slot, i) => slot === i), told.join());
  for (const { after, tried, page: isPage } of fates) {
    const from = after * 1000;
    // The first attempt counts: whoever has the first second may come before the new server does, and comes again.
    check(`${isPage ? "Chromium, " : ""}retry-after=${after}: tries in that second, not before`, tried >= from && tried < from + 1000 + 1500, `${Math.round(tried)} ms`);
  }
  for (const { client } of clients) client.close();
  await until(() => clients.every(({ client }) => client.state === "closed"), 3000);
  await context?.close();
  await server.stop();
}

/** Opens a client in a page; what is returned waits for what became of it. */
async function pageFate(context, page, url) {
  const tab = await context.newPage();
  await tab.goto(page);
  await tab.evaluate(async (target) => {
    const { PulsewheelClient: Client } = await import("./client.js");
    const fate = {};
    const client = new Client(target);
    await new Promise((done) => { client.on("open", done); });
    globalThis.fate = new Promise((done) => {
      client.on("close", ({ code, reason }) => { fate.code ??= code; fate.after ??= /retry-after=(\d+)$/.exec(reason)?.[1]; fate.closed ??= performance.now(); });
      client.on("state", ({ state }) => { if (fate.closed && state === "connecting") fate.tried ??= performance.now() - fate.closed; });
      client.on("open", () => done(fate));
    });
  }, url);
  return () => tab.evaluate(() => globalThis.fate);
}

/** A client whose tokens are those of the list, the last one for ever. */
function withTokens(Client, url, tokens, options) {
  const asked = [];
  const client = new Client(url, { ...options, reconnectDelay: 100, getToken: async ({ refused }) => { asked.push(refused); return tokens[Math.min(asked.length, tokens.length) - 1]; } });
  const ends = [];
  client.on("close", ({ code, reason, willReconnect }) => ends.push({ code, reason, willReconnect }));
  return { client, asked, ends };
}

async function tokens(program, browser, page) {
  const child = spawn(program, { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [line] = await once(child.stdout.setEncoding("utf8"), "data");
    const url = line.trim();
    const node = { WebSocket };

    const renewed = withTokens(PulsewheelClient, url, ["bad", "good-1", "good-2"], node);
    await until(() => renewed.client.state === "open" && renewed.client.queued === 0 && renewed.asked.length === 2, 5000);
    check("token refused, then a new one: open", renewed.ends[0]?.code === 4401 && renewed.client.state === "open", JSON.stringify(renewed.ends));
    check("token refused: getToken is told", renewed.asked.join() === "false,true");
    renewed.client.send("expire");
    await until(() => renewed.asked.length === 3 && renewed.client.state === "open", 5000);
    check("token expired on an open connection: a new one, and back", renewed.ends[1]?.reason === "token-expired" && renewed.asked[2] === true, JSON.stringify(renewed.ends));
    renewed.client.send("kick");
    await until(() => renewed.client.state === "closed", 5000);
    check("4403: terminal", renewed.ends[2]?.code === 4403 && !renewed.ends[2].willReconnect && renewed.client.timers.length === 0, JSON.stringify(renewed.ends[2]));

    const stubborn = withTokens(PulsewheelClient, url, ["bad"], node);
    await until(() => stubborn.client.state === "closed", 5000);
    check("the same refused token again: terminal, without asking the server", stubborn.client.state === "closed" && stubborn.asked.length === 2 && stubborn.client.counts.opened <= 1, JSON.stringify(stubborn.ends));

    const policy = withTokens(PulsewheelClient, url, ["good"], node);
    await until(() => policy.client.state === "open", 5000);
    policy.client.send("policy");
    await until(() => policy.client.state === "closed", 5000);
    check("1008: terminal", policy.ends[0]?.code === 1008 && !policy.ends[0].willReconnect);

    if (!browser) return;
    const context = await browser.newContext();
    const tab = await context.newPage();
    await tab.goto(page);
    const seen = await tab.evaluate(async ({ url: target }) => {
      const { PulsewheelClient: Client } = await import("./client.js");
      const asked = [];
      const ends = [];
      const client = new Client(target, { reconnectDelay: 100, getToken: async ({ refused }) => { asked.push(refused); return asked.length === 1 ? "bad" : "good"; } });
      client.on("close", ({ code }) => ends.push(code));
      const wait = (condition) => new Promise((done) => { const look = () => (condition() ? done() : setTimeout(look, 25)); look(); });
      await wait(() => client.state === "open" && asked.length === 2);
      client.send("kick");
      await wait(() => client.state === "closed");
      return { asked, ends, timers: client.timers.length };
    }, { url });
    check("Chromium: 4401 is seen, a new token is accepted, 4403 is terminal", seen.asked.join() === "false,true" && seen.ends.join() === "4401,4403" && seen.timers === 0, JSON.stringify(seen));
    await context.close();
  } finally {
    child.kill();
  }
}

async function main() {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { "no-browser": { type: "boolean" } } });
  if (positionals.length !== 2) {
    console.error("usage: node trouble.mjs BINARY TOKENS [--no-browser]");
    return 2;
  }
  const [binary, program] = positionals.map((path) => resolve(path));
  const server = await ownServer(binary);
  let browser = null;
  try {
    const page = `${server.admin}/demo`;
    if (!values["no-browser"]) browser = await launchBrowser();
    await Promise.all([
      cutNetwork(server, browser, page), slots(binary, browser, page), tokens(program, browser, page),
      ...(browser ? [offline(server, browser, page), hidden(binary, server)] : []),
    ]);
  } finally {
    await browser?.close();
    await server.end();
  }
  return conclude();
}

process.exitCode = await main();
