// A WebSocket without a network and a world with fake time, for the unit tests.
// The real thing, browsers and sockets included, is driven by ../e2e.

import { mock } from "node:test";
import { PulsewheelClient } from "../pulsewheel.js";

export class FakeWebSocket {
  static all = [];

  constructor(url, protocols) {
    this.url = new URL(url);
    this.protocols = protocols;
    this.readyState = 0;
    this.bufferedAmount = 0;
    this.sent = [];
    this.closedWith = null;
    FakeWebSocket.all.push(this);
  }

  send(data) {
    if (this.readyState === 0) throw new Error("InvalidStateError");
    if (this.readyState === 1) this.sent.push(data);
  }

  close(code, reason) {
    this.readyState = 2;
    this.closedWith = { code, reason };
  }

  // What the server and the network do.
  open() { this.readyState = 1; this.onopen({}); }
  message(data) { this.onmessage({ data: typeof data === "object" && !(data instanceof ArrayBuffer) ? JSON.stringify(data) : data }); }
  error() { this.onerror({ error: new Error("network") }); }
  end(code = 1006, reason = "", wasClean = code !== 1006) { this.readyState = 3; this.onclose({ code, reason, wasClean }); }
  hello(interval_ms = 25000, timeout_ms = 75000) { this.message({ type: "hello", id: "0123456789abcdef", interval_ms, timeout_ms, node: "n1" }); }

  get beats() { return this.sent.filter((data) => typeof data === "string" && data.startsWith('{"type":"heartbeat",')).map((data) => JSON.parse(data)); }
  ackLast() { this.message({ type: "heartbeat_ack", ts: this.beats.at(-1).ts }); }
}

// Fakes timers and clocks and returns a world in which clients are made. Math.random
// is 0.5 unless set, so a pause with full jitter is half its ceiling.
export function world(t) {
  FakeWebSocket.all = [];
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  mock.method(performance, "now", () => w.skew + Date.now());
  mock.method(Math, "random", () => w.random);
  t.after(() => { mock.timers.reset(); mock.restoreAll(); });
  const w = {
    skew: 0, // raised alone, the clock moves and no timer fires: a frozen page
    random: 0.5,
    // By the millisecond: within one tick of the mock every callback would see the
    // tick's end as the time, and a timer set by a timer would start from there.
    tick: (ms) => { for (let i = 0; i < ms; i++) mock.timers.tick(1); },
    get socket() { return FakeWebSocket.all.at(-1); },
    get sockets() { return FakeWebSocket.all; },
    client(options = {}, url = "ws://server.example/ws") {
      const client = new PulsewheelClient(url, { WebSocket: FakeWebSocket, ...options });
      const events = [];
      for (const type of ["state", "open", "hello", "message", "beat", "ack", "serverbeat", "silent", "close", "error"]) {
        client.on(type, (detail) => events.push({ type, ...detail }));
      }
      client.seen = (type) => events.filter((event) => event.type === type);
      return client;
    },
    opened(options, url) {
      const client = w.client(options, url);
      w.socket.open();
      return client;
    },
  };
  return w;
}

// Lets promises settle; they don't depend on the faked timers.
export async function settle() { for (let i = 0; i < 10; i++) await null; }
