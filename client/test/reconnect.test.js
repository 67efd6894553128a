import assert from "node:assert/strict";
import { test } from "node:test";
import { settle, world } from "./fake.js";

test("asks for what browsers need; what the URL says wins", (t) => {
  const w = world(t);
  w.client();
  assert.equal(w.socket.url.search, "?errors=close&heartbeat=text");
  w.client({ heartbeatMode: "ping", serverInterval: 30_000 }, "https://server.example/ws?room=7#x");
  assert.equal(w.socket.url.href, "wss://server.example/ws?room=7&errors=close&heartbeat=ping&heartbeat_interval=30000ms");
  w.client({ heartbeatMode: null }, "ws://server.example/ws?errors=http");
  assert.equal(w.socket.url.search, "?errors=http");
});

test("a lost connection comes back after full jitter", (t) => {
  const w = world(t);
  const client = w.opened();
  w.socket.end(1006);
  assert.equal(client.state, "waiting");
  assert.deepEqual(client.timers, ["reconnect"]);
  assert.equal(client.seen("close")[0].delay, 500); // half of the first ceiling, 1 s
  w.tick(499);
  assert.equal(w.sockets.length, 1);
  w.tick(1);
  assert.equal(w.sockets.length, 2);
  w.socket.open();
  assert.equal(client.state, "open");
});

test("a connection that fails before it opens backs off to 60 s", (t) => {
  const w = world(t);
  const client = w.client();
  for (let i = 0; i < 12; i++) {
    w.socket.error();
    w.socket.end(1006);
    w.tick(client.seen("close").at(-1).delay);
  }
  const delays = client.seen("close").map((close) => close.delay * 2);
  assert.deepEqual(delays, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000, 60_000, 60_000, 60_000]);
  w.random = 0;
  w.socket.end(1006);
  assert.equal(client.seen("close").at(-1).delay, 0, "full jitter reaches down to nothing");
});

test("only a connection that lasted resets the back-off", (t) => {
  const w = world(t);
  const client = w.client({ heartbeatInterval: 0 });
  for (let i = 0; i < 4; i++) {
    w.socket.open(); // opens and is refused at once, as with ?errors=close
    w.socket.end(1013, "overload");
    w.tick(client.seen("close").at(-1).delay);
  }
  assert.deepEqual(client.seen("close").map((close) => close.delay), [500, 1000, 2000, 4000]);
  w.socket.open();
  w.tick(10_000);
  w.socket.end(1001);
  assert.equal(client.seen("close").at(-1).delay, 500);
});

test("retry-after in the reason is the server's schedule, spread over its last digit", (t) => {
  const tests = [
    { name: "seconds", reason: "restart; retry-after=12", want: 12_500 },
    { name: "tenths", reason: "restart; retry-after=0.4", want: 450 },
    { name: "alone", reason: "retry-after=3", want: 3500 },
    { name: "no space", reason: "restart;retry-after=3", want: 3500 },
    { name: "followed", reason: "restart; retry-after=3; x=1", want: 3500 },
    { name: "zero", reason: "restart; retry-after=0", want: 500 },
    { name: "bounded", reason: "restart; retry-after=999999999", want: 3_600_500 },
    { name: "negative", reason: "restart; retry-after=-3", want: 500 },
    { name: "no number", reason: "restart; retry-after=soon", want: 500 },
    { name: "another word", reason: "restart; no-retry-after=9", want: 500 },
    { name: "missing", reason: undefined, want: 500 },
  ];
  const w = world(t);
  for (const { name, reason, want } of tests) {
    const client = w.opened();
    w.socket.end(1012, reason);
    assert.equal(client.seen("close")[0].delay, want, name);
    client.close();
  }
});

test("a timer that fires early takes no slot before its time", (t) => {
  const w = world(t);
  const client = w.opened();
  w.socket.end(1012, "restart; retry-after=2");
  w.skew -= 30; // as in a busy Node, which counts from when its loop last looked at the clock
  w.tick(2500);
  assert.equal(w.sockets.length, 1);
  assert.deepEqual(client.timers, ["reconnect"]);
  w.tick(29);
  assert.equal(w.sockets.length, 1);
  w.tick(1);
  assert.equal(w.sockets.length, 2);
});

test("a server that sends everybody back at once, again and again, is met with jitter", (t) => {
  const w = world(t);
  const client = w.client();
  const delays = [];
  for (let i = 0; i < 3; i++) {
    w.socket.open();
    w.socket.end(1013, "overload; retry-after=0.000");
    delays.push(client.seen("close").at(-1).delay);
    w.tick(1000);
  }
  assert.deepEqual(delays, [0.5, 500, 500]);
});

test("connect() ends a pause and starts the back-off anew", (t) => {
  const w = world(t);
  const client = w.client();
  for (let i = 0; i < 5; i++) { w.socket.end(1006); client.connect(); }
  assert.equal(w.sockets.length, 6);
  assert.deepEqual(client.seen("close").map((close) => close.delay), [500, 500, 500, 500, 500]);
  assert.deepEqual(client.timers, ["connect"]);
});

for (const code of [1002, 1007, 1008, 1009, 4403, 4401]) {
  test(`${code} is terminal`, (t) => {
    const w = world(t);
    const client = w.opened();
    w.socket.end(code, "no");
    assert.equal(client.state, "closed");
    assert.deepEqual(client.timers, []);
    assert.equal(client.seen("close")[0].willReconnect, false);
    w.tick(600_000);
    assert.equal(w.sockets.length, 1);
    client.connect(); // the application knows better
    assert.equal(w.sockets.length, 2);
  });
}

for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4408, 4999]) {
  test(`${code} from the server is followed by a reconnect`, (t) => {
    const w = world(t);
    const client = w.opened();
    w.socket.end(code);
    assert.equal(client.state, "waiting");
    w.tick(1000);
    assert.equal(w.sockets.length, 2);
  });
}

test("reconnect: false makes any end final", (t) => {
  const w = world(t);
  const client = w.opened({ reconnect: false });
  w.socket.end(1012);
  assert.equal(client.state, "closed");
  assert.deepEqual(client.timers, []);
});

test("getToken is asked before each attempt, and again after 4401", async (t) => {
  const w = world(t);
  const asked = [];
  const tokens = ["one", "two", "three"];
  const client = w.client({ getToken: async (context) => { asked.push(context.refused); return tokens.shift(); } });
  await settle();
  assert.equal(w.socket.url.searchParams.get("token"), "one");
  w.socket.open();
  w.socket.end(1006);
  w.tick(500);
  await settle();
  assert.equal(w.socket.url.searchParams.get("token"), "two");
  w.socket.open();
  w.socket.end(4401, "token-expired");
  assert.equal(client.state, "waiting");
  w.tick(5000);
  await settle();
  assert.equal(w.socket.url.searchParams.get("token"), "three");
  w.socket.open();
  w.socket.end(1006);
  w.tick(5000);
  await settle();
  assert.deepEqual(asked, [false, false, true, false], "the refusal is over once a connection was had");
});

test("4401 is terminal where getToken has nothing new", async (t) => {
  const w = world(t);
  const client = w.client({ getToken: () => "same", tokenParam: "key" });
  await settle();
  assert.equal(w.socket.url.searchParams.get("key"), "same");
  w.socket.open();
  w.socket.end(4401, "token-expired");
  w.tick(1000);
  await settle();
  assert.equal(w.sockets.length, 1);
  assert.equal(client.state, "closed");
  assert.deepEqual(client.timers, []);
  assert.equal(client.seen("close").at(-1).reason, "token-unchanged");
});

test("a getToken that fails or hangs is an attempt that failed", async (t) => {
  const w = world(t);
  let answer = () => Promise.reject(new Error("offline"));
  const client = w.client({ getToken: () => answer() });
  await settle();
  assert.equal(client.seen("error")[0].error.message, "offline");
  assert.equal(client.state, "waiting");
  let late;
  answer = () => new Promise((resolve) => { late = resolve; });
  w.tick(500);
  await settle();
  w.tick(15_000);
  assert.equal(client.state, "waiting");
  late("too late");
  await settle();
  assert.equal(w.sockets.length, 0);
  answer = () => "in time";
  w.tick(2000);
  await settle();
  assert.equal(w.sockets.length, 1);
  client.close();
});

test("an attempt that neither opens nor fails ends at connectTimeout", (t) => {
  const w = world(t);
  const client = w.client();
  const first = w.socket;
  w.tick(15_000);
  assert.equal(client.state, "waiting");
  assert.ok(first.closedWith);
  w.tick(500);
  w.socket.open();
  first.open(); // too late
  assert.equal(client.counts.opened, 1);
});

test("a class that throws at construction is told after the constructor returned", async (t) => {
  const w = world(t);
  const client = w.client({ WebSocket: class { constructor() { throw new Error("blocked"); } } });
  await settle();
  assert.equal(client.seen("error")[0].error.message, "blocked");
  assert.equal(client.state, "closed");
  assert.deepEqual(client.timers, []);
});

test("online and a visible tab bring a pause forward, with jitter, but keep to the server's slot", (t) => {
  const w = world(t);
  const window = new EventTarget();
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const listeners = new Set();
  globalThis.addEventListener = (type, fn) => { listeners.add(type); window.addEventListener(type, fn); };
  globalThis.removeEventListener = (type, fn) => { listeners.delete(type); window.removeEventListener(type, fn); };
  globalThis.document = document;
  t.after(() => { for (const name of ["addEventListener", "removeEventListener", "document"]) delete globalThis[name]; });

  const client = w.client();
  for (let i = 0; i < 8; i++) { w.socket.end(1006); if (i < 7) w.tick(client.seen("close").at(-1).delay); }
  assert.equal(client.seen("close").at(-1).delay, 30_000);
  document.visibilityState = "hidden";
  document.dispatchEvent(new Event("visibilitychange"));
  w.tick(1000);
  assert.equal(w.sockets.length, 8);
  document.visibilityState = "visible";
  document.dispatchEvent(new Event("visibilitychange"));
  w.tick(500);
  assert.equal(w.sockets.length, 9);

  w.socket.open();
  window.dispatchEvent(new Event("offline"));
  assert.equal(w.socket.beats.length, 1, "asks instead of closing");
  w.socket.ackLast();
  window.dispatchEvent(new Event("online"));
  assert.equal(w.socket.beats.length, 2);
  w.socket.end(1012, "restart; retry-after=40");
  window.dispatchEvent(new Event("online"));
  w.tick(39_000);
  assert.equal(w.sockets.length, 9);
  w.tick(2000);
  assert.equal(w.sockets.length, 10);

  w.socket.open();
  w.tick(10_000);
  w.random = 0.1;
  w.socket.end(1006);
  w.random = 0.9;
  window.dispatchEvent(new Event("online"));
  w.tick(100);
  assert.equal(w.sockets.length, 11, "never later than it was going to be");

  client.close();
  w.socket.end(1000);
  assert.deepEqual([...listeners], [], "no listener stays on the page");
});
