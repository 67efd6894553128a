// A share of the clients of restart.mjs, in a process of its own: descriptors are
// counted by process, and one event loop for all would measure itself. Forked; talks
// by messages: {open: {url, count, source}}, {collect: true}, {close: true}.

import WebSocket from "ws";
import { PulsewheelClient } from "../pulsewheel.js";
import { now, pause } from "./harness.mjs";

/** Clients that start at once, and the pause before the next ones: 5,000 a second. */
const BATCH = 100;
const BATCH_MS = 20;
/** Clients that share a source address: an address has 28,000 ports, and each restart leaves its own waiting. */
const PER_ADDRESS = 1_000;

/** Between two reports. */
const TICK_MS = 50;

const clients = [];
/** What happened to each client since the last collection. */
let fates = [];

const fresh = () => ({ lost: [], reasons: [], tries: [], back: [] });

/** The class of ws bound to one loopback address, without extensions and their memory. */
function bound(localAddress) {
  return class extends WebSocket {
    constructor(url, protocols) { super(url, protocols, { localAddress, perMessageDeflate: false }); }
  };
}

function watch(client, index) {
  client.on("state", ({ state }) => { if (state === "connecting") fates[index].tries.push(now()); });
  client.on("open", () => fates[index].back.push(now()));
  client.on("close", ({ opened, reason }) => {
    if (!opened) return; // a refused attempt: counted by its try
    fates[index].lost.push(now());
    fates[index].reasons.push(reason);
  });
}

async function open({ url, count, source }) {
  let Class;
  for (let i = 0; i < count; i++) {
    if (i % PER_ADDRESS === 0) Class = bound(`127.0.${source}.${1 + i / PER_ADDRESS}`);
    fates.push(fresh());
    const client = new PulsewheelClient(url, { WebSocket: Class, autoConnect: false });
    watch(client, i);
    clients.push(client);
    client.connect();
    if (i % BATCH === BATCH - 1) await pause(BATCH_MS);
  }
}

const openNow = () => clients.filter((client) => client.state === "open").length;

process.on("message", async ({ open: order, collect, close }) => {
  if (order) await open(order);
  if (collect) {
    process.send({ fates });
    fates = clients.map(fresh);
  }
  if (close) {
    for (const client of clients) client.close();
    process.disconnect();
  }
});
const returned = () => fates.filter(({ back }) => back.length > 0).length;
let lastTick = now();
setInterval(() => {
  const lag = now() - lastTick - TICK_MS; // how long nothing could happen here in time
  lastTick = now();
  if (process.connected) process.send({ open: openNow(), returned: returned(), lag });
}, TICK_MS).unref();
