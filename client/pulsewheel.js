/**
 * Pulsewheel's client for browsers and Node: a WebSocket that beats, notices a
 * silent server, and comes back.
 *
 *   const client = new PulsewheelClient("wss://example.com/ws");
 *   client.on("message", ({ data }) => console.log(data));
 *   client.send("hello");
 *
 * States:
 *
 *   idle ──connect()──▶ connecting ──▶ open ──▶ waiting ──▶ connecting ──▶ …
 *                           │            │         ▲ any end but a terminal one
 *                           └────────────┴─────────┘
 *   any ──close()──▶ closing ──▶ closed      terminal close code: ──▶ closed
 *
 * Timers: every one is in #timers under its name and nowhere else, so "no timer
 * is left" is a question with an answer (the property timers).
 *
 *   beat       every heartbeatInterval while open
 *   answer     from an unanswered beat to the verdict "silent"
 *   quiet      instead of beat where that is off: watches the server's own beats
 *   hello      holds the backlog until the server has said its first word
 *   connect    ends an attempt that neither opens nor fails
 *   reconnect  the pause before the next attempt
 *
 * Sockets: a handler acts only while its socket is #socket. A socket given up is
 * simply no longer that, so its late events change nothing.
 */

/** Default options; README.md says what each means. Times are milliseconds. */
const DEFAULTS = Object.freeze({
  heartbeatInterval: 5_000,
  heartbeatMode: "text",
  serverInterval: 0,
  ackTimeout: 10_000,
  connectTimeout: 15_000,
  reconnect: true,
  reconnectDelay: 1_000,
  reconnectDelayMax: 60_000,
  queueMax: 100,
  queueBytesMax: 1_048_576,
  getToken: null,
  tokenParam: "token",
  protocols: undefined,
  autoConnect: true,
  WebSocket: undefined,
});

/** Close codes after which the same client would only be refused again. */
const TERMINAL = new Set([1002, 1007, 1008, 1009, 4403]);
const CODE_TOKEN = 4401;
const CODE_SILENT = 4408;
const CODE_LOST = 1006;

/** Readiness of a WebSocket; the constants of the class may be missing in a substitute. */
const OPEN = 1;

/** Longest text that can be one of the protocol's own messages. */
const PROTOCOL_CHARS_MAX = 512;
/** How long the backlog waits for the server's first word before it goes out anyway. */
const HELLO_MS_MAX = 1_000;
/** A connection that lived this long proves that the back-off may start anew. */
const STABLE_MS = 10_000;
/**
 * A timer later than this was held up by the page or the machine: its lateness says
 * nothing about the server. Above the second to which browsers align the timers of hidden tabs.
 */
const LATE_MS = 2_000;
/** No server may send a client away for longer, by mistake or malice. */
const RETRY_AFTER_MS_MAX = 3_600_000;
/** Beats whose acknowledgement is awaited for its round trip; older ones are forgotten. */
const BEATS_OUT_MAX = 16;
/** Longest delay that timers of browsers and Node keep; beyond it they fire at once. */
const TIMER_MS_MAX = 2_147_483_647;

export class PulsewheelClient {
  #options;
  #url;
  #WebSocket;
  #listeners = new Map();
  #timers = new Map();
  #state = "idle";

  // Of the attempt or connection under way; reset by #dial.
  #socket = null;
  #run = 0; // number of the attempt: what an older one still awaits is ignored
  #token;
  #openedAt = 0; // 0 until the socket opens
  #firstWordDue = false;
  #hello = null;
  #beatsOut = new Set(); // the ts of beats not yet acknowledged
  #asked = false; // an answer is due: a beat went out and nothing was heard since
  #askedAt = 0;
  #askedBuffered = 0;
  #graceUsed = false;
  #heardSince = false;

  // Over all connections.
  #attempt = 0;
  #reconnectAt = 0;
  #slotAnnounced = false; // the pause is the server's schedule: keep to it
  #refusedToken;
  #rtt;
  #queue = [];
  #queueBytes = 0;
  #listening = false;
  #counts = {
    beatsSent: 0, acks: 0, serverBeats: 0, messagesIn: 0, messagesOut: 0,
    opened: 0, silences: 0, refusedSends: 0,
  };

  /**
   * Connects at once unless autoConnect is false. Throws a TypeError for a URL or
   * an option that can't work; whatever happens later is told by events.
   */
  constructor(url, options = {}) {
    this.#options = checkedOptions(options);
    this.#url = checkedURL(url, this.#options);
    this.#WebSocket = this.#options.WebSocket ?? globalThis.WebSocket;
    if (typeof this.#WebSocket !== "function") {
      throw new TypeError("no WebSocket here: pass one as the option WebSocket (in Node, the class of the package ws)");
    }
    if (this.#options.autoConnect) this.connect();
  }

  /** "idle", "connecting", "open", "waiting", "closing" or "closed". */
  get state() { return this.#state; }
  /** What the server granted in its hello, or null: id, interval_ms, timeout_ms, node. */
  get hello() { return this.#hello; }
  /** The last round trip of a heartbeat in milliseconds; undefined before the first. */
  get rtt() { return this.#rtt; }
  /** Names of the timers that run; empty once closed. */
  get timers() { return [...this.#timers.keys()]; }
  /** Messages that wait for a connection. */
  get queued() { return this.#queue.length; }
  /** Counters since construction, as a copy. */
  get counts() { return { ...this.#counts }; }

  /** Calls the listener for each event of that type; returns a function that ends it. */
  on(type, listener) {
    if (typeof listener !== "function") throw new TypeError("a listener is a function");
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.off(type, listener);
  }

  off(type, listener) { this.#listeners.get(type)?.delete(listener); }

  /** Connects, or comes back at once from waiting or closed; nothing where one is under way. */
  connect() {
    if (this.#state === "connecting" || this.#state === "open") return;
    this.#attempt = 0;
    this.#refusedToken = undefined;
    this.#listen();
    this.#dial();
  }

  /**
   * Sends a string, ArrayBuffer, view or Blob, or queues it while there is no
   * connection. False: refused, since the client is closed or a bound is reached;
   * it is neither sent nor kept. True promises no delivery.
   */
  send(data) {
    const size = data.byteLength ?? data.size ?? data.length;
    const unsent = this.#state === "open" ? this.#socket.bufferedAmount || 0 : 0;
    const empty = this.#queue.length === 0 && unsent === 0;
    const open = this.#isOpen() && this.#queue.length === 0;
    // Like the server's outbox: the bounds are checked before adding, and an
    // empty one takes a single message of any size.
    const fits = empty || unsent + this.#queueBytes + size <= this.#options.queueBytesMax;
    if (this.#state === "closing" || this.#state === "closed" || !fits ||
        (!open && this.#queue.length >= this.#options.queueMax)) {
      this.#counts.refusedSends++;
      return false;
    }
    if (open) {
      this.#transmit(data);
    } else {
      this.#queue.push({ data: copied(data), size });
      this.#queueBytes += size;
    }
    return true;
  }

  /**
   * Ends it for good: clears every timer and the backlog before it returns, then
   * says goodbye. The event close follows when the socket has ended. Code: 1000 or
   * 3000 to 4999, as for WebSocket.
   */
  close(code = 1000, reason = "") {
    if (code !== 1000 && !(code >= 3000 && code <= 4999)) throw new RangeError(`close code ${code}: 1000 or 3000 to 4999`);
    if (this.#state === "closing" || this.#state === "closed") return;
    this.#run++;
    this.#rest();
    this.#queue = [];
    this.#queueBytes = 0;
    if (!this.#socket) {
      this.#ended({ code, reason, wasClean: true });
      return;
    }
    this.#enter("closing");
    this.#socket.close(code, reason);
  }

  // ---- connecting ----

  #dial() {
    const run = ++this.#run;
    this.#stop("reconnect");
    this.#socket = null;
    this.#openedAt = 0;
    this.#hello = null;
    const { connectTimeout } = this.#options;
    if (connectTimeout > 0) this.#start("connect", connectTimeout, () => this.#giveUp(CODE_LOST, "connect-timeout"));
    this.#enter("connecting");
    if (run !== this.#run) return; // a listener closed it
    if (!this.#options.getToken) {
      this.#open();
      return;
    }
    const refused = this.#refusedToken !== undefined;
    Promise.resolve().then(() => this.#options.getToken({ refused })).then(
      (token) => { if (run === this.#run) this.#openWith(token); },
      (error) => {
        if (run !== this.#run) return;
        this.#emit("error", { error });
        if (run === this.#run) this.#lost({ code: CODE_LOST, reason: "token-unavailable", wasClean: false });
      },
    );
  }

  #openWith(token) {
    if (this.#refusedToken !== undefined && token === this.#refusedToken) {
      // The server has said what it thinks of this one.
      this.#rest();
      this.#ended({ code: CODE_TOKEN, reason: "token-unchanged", wasClean: false });
      return;
    }
    this.#token = token;
    this.#open();
  }

  #open() {
    const url = new URL(this.#url);
    if (this.#options.getToken && this.#token != null) url.searchParams.set(this.#options.tokenParam, this.#token);
    let socket;
    try {
      socket = new this.#WebSocket(url.href, this.#options.protocols);
    } catch (error) {
      // Blocked content or a bad subprotocol: the next attempt would throw as well.
      // Told a moment later, so that whoever is still constructing can listen.
      const run = this.#run;
      this.#rest();
      queueMicrotask(() => {
        if (run !== this.#run) return;
        this.#emit("error", { error });
        if (run === this.#run) this.#ended({ code: CODE_LOST, reason: "cannot-connect", wasClean: false });
      });
      return;
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const current = (handle) => (event) => { if (this.#socket === socket) handle(event); };
    socket.onopen = current(() => this.#opened());
    socket.onmessage = current((event) => this.#received(event.data));
    socket.onerror = current((event) => this.#failed(event));
    socket.onclose = current((event) => this.#closed(event));
  }

  #opened() {
    if (this.#state !== "connecting") return;
    const { heartbeatInterval } = this.#options;
    this.#stop("connect");
    this.#openedAt = now();
    this.#beatsOut.clear();
    this.#asked = this.#graceUsed = false;
    this.#firstWordDue = true;
    this.#counts.opened++;
    if (heartbeatInterval > 0) this.#start("beat", heartbeatInterval, () => this.#beat(), true);
    // With ?errors=close a refusal looks like an opening, and a backlog sent into
    // it would be lost. The server's hello proves that this is a real one.
    const backlog = this.#queue.length > 0;
    if (backlog && this.#asksForText()) this.#start("hello", HELLO_MS_MAX, () => this.#flush());
    this.#enter("open");
    this.#emit("open", {});
    if (backlog && !this.#timers.has("hello")) this.#flush();
  }

  // ---- heartbeats ----

  #beat() {
    const socket = this.#socket;
    if (!this.#isOpen()) return;
    // Never a second beat behind an unsent one: the link is stuck, and the timer
    // of the first already decides.
    if (this.#asked && socket.bufferedAmount > 0) return;
    const ts = Math.round(now() * 1000) / 1000;
    this.#beatsOut.add(ts);
    if (this.#beatsOut.size > BEATS_OUT_MAX) this.#beatsOut.delete(this.#beatsOut.values().next().value);
    this.#counts.beatsSent++;
    const ahead = socket.bufferedAmount || 0; // read before: the beat itself leaving is no progress
    socket.send(`{"type":"heartbeat","ts":${ts}}`);
    if (!this.#asked) this.#awaitAnswer(ahead);
    this.#emit("beat", { ts });
  }

  #awaitAnswer(ahead) {
    if (this.#options.ackTimeout === 0) return;
    this.#asked = true;
    this.#askedAt = now();
    this.#askedBuffered = ahead;
    this.#start("answer", this.#options.ackTimeout, () => this.#unanswered());
  }

  #unanswered() {
    const late = now() - this.#askedAt > this.#options.ackTimeout + LATE_MS;
    const buffered = this.#socket.bufferedAmount || 0;
    // A slow upload is ahead of the beat and still moves: the peer is alive.
    if (buffered < this.#askedBuffered) {
      this.#awaitAnswer(buffered);
      return;
    }
    // The page was frozen, throttled or the machine asleep: the answer may lie in
    // the queue behind this timer. Ask once more before any verdict.
    if (late && !this.#graceUsed) {
      this.#graceUsed = true;
      this.#asked = false;
      this.#beat();
      if (!this.#asked && this.#state === "open") this.#awaitAnswer(buffered);
      return;
    }
    this.#counts.silences++;
    this.#emit("silent", { heardNothingFor: now() - this.#askedAt });
    if (this.#state === "open") this.#giveUp(CODE_SILENT, "heartbeat-timeout");
  }

  /** Watches the server's own beats, where the client sends none of its own. */
  #watchServer() {
    const { heartbeatInterval, ackTimeout } = this.#options;
    if (heartbeatInterval > 0 || ackTimeout === 0) return;
    // Half an interval of slack for the beat to arrive. Its absence is no proof
    // (the server skips beats while it hears from us), so the client asks first.
    const period = Math.min(this.#hello.interval_ms * 1.5, TIMER_MS_MAX);
    this.#heardSince = true;
    this.#start("quiet", period, () => {
      if (!this.#heardSince) this.#beat();
      this.#heardSince = false;
    }, true);
  }

  // ---- receiving ----

  #received(data) {
    if (this.#state !== "open") return; // closing: nobody listens any more
    this.#heardSince = true;
    this.#asked = this.#graceUsed = false; // any byte counts as alive
    this.#stop("answer");
    const first = this.#firstWordDue;
    this.#firstWordDue = false;
    if (!this.#handleProtocol(protocolMessage(data), first)) {
      this.#counts.messagesIn++;
      this.#emit("message", { data });
    }
    if (this.#timers.has("hello")) this.#flush();
  }

  /** True where the message was the protocol's own and goes no further. */
  #handleProtocol(message, first) {
    switch (message?.type) {
      case "heartbeat": {
        // Whoever asked for another mode gets none from the server: this is somebody's telemetry.
        if (this.#asksForOther()) return false;
        const { ts } = message;
        const echo = typeof ts === "number" || (typeof ts === "string" && ts.length <= 64) ? { ts } : {};
        this.#counts.serverBeats++;
        if (this.#isOpen()) this.#socket.send(JSON.stringify({ type: "heartbeat_ack", ...echo }));
        this.#emit("serverbeat", {});
        return true;
      }
      case "heartbeat_ack": {
        if (this.#counts.beatsSent === 0) return false;
        this.#counts.acks++;
        // Only the first answer to a beat of this connection is a measurement.
        const rtt = this.#beatsOut.delete(message.ts) ? now() - message.ts : undefined;
        if (rtt !== undefined) this.#rtt = rtt;
        this.#emit("ack", { rtt });
        return true;
      }
      case "hello":
        // An application may have a hello of its own; the server's comes first and is asked for.
        if (!first || !this.#asksForText() || !(message.interval_ms > 0)) return false;
        this.#hello = Object.freeze(message);
        this.#watchServer();
        this.#emit("hello", message);
        return true;
      default:
        return false;
    }
  }

  /** A socket that has begun to close would swallow what is sent. */
  #isOpen() { return this.#state === "open" && this.#socket.readyState === OPEN; }

  #asksForOther() { return /^(?:ping|none)$/.test(this.#url.searchParams.get("heartbeat") ?? ""); }

  #asksForText() { return this.#url.searchParams.get("heartbeat") === "text"; }

  #flush() {
    this.#stop("hello");
    while (this.#queue.length > 0 && this.#isOpen()) {
      const { data, size } = this.#queue.shift();
      this.#queueBytes -= size;
      this.#transmit(data);
    }
  }

  #transmit(data) {
    this.#socket.send(data);
    this.#counts.messagesOut++;
  }

  // ---- ending and coming back ----

  #failed(event) {
    // A WebSocket tells of its close after each error; until then nothing may beat.
    this.#stopAll();
    if (this.#state !== "closing") this.#emit("error", { error: event.error ?? event });
  }

  #closed({ code, reason, wasClean }) {
    if (this.#state === "closing") {
      this.#ended({ code, reason, wasClean });
      return;
    }
    this.#lost({ code, reason, wasClean });
  }

  /** Leaves a socket that can't be trusted to end by itself. */
  #giveUp(code, reason) {
    const socket = this.#socket;
    this.#socket = null; // its later events are none of ours
    // The closing handshake needs the very peer that is silent: where a hard end exists (Node), take it.
    if (typeof socket?.terminate === "function") socket.terminate();
    else socket?.close(code >= 3000 ? code : 1000, reason);
    this.#lost({ code, reason, wasClean: false });
  }

  #lost(end) {
    const opened = this.#openedAt > 0;
    if (opened && now() - this.#openedAt >= STABLE_MS) this.#attempt = 0;
    this.#run++;
    this.#socket = null;
    const { getToken, reconnect } = this.#options;
    if (end.code === CODE_TOKEN) this.#refusedToken = this.#token ?? null;
    else if (opened) this.#refusedToken = undefined;
    if (TERMINAL.has(end.code) || (end.code === CODE_TOKEN && !getToken) || !reconnect) {
      this.#rest();
      this.#ended(end);
      return;
    }
    this.#stopAll();
    const delay = this.#pause(end.reason);
    this.#wait(delay);
    const run = this.#run;
    this.#enter("waiting");
    if (run !== this.#run || this.#state !== "waiting") return;
    this.#emit("close", { ...end, opened, willReconnect: true, delay, attempt: this.#attempt });
  }

  /** The pause before the next attempt: the server's slot, or full jitter. */
  #pause(reason) {
    const { reconnectDelay, reconnectDelayMax } = this.#options;
    const ceiling = Math.min(reconnectDelayMax, reconnectDelay * 2 ** this.#attempt);
    const again = this.#attempt > 0;
    this.#attempt = Math.min(this.#attempt + 1, 30);
    const slot = retryAfter(reason);
    this.#slotAnnounced = slot !== null;
    if (!slot) return Math.random() * ceiling;
    // Slots are as wide as their last digit: spread within, or each second is a wave.
    const delay = slot.ms + Math.random() * slot.widthMs;
    return again ? Math.max(delay, Math.random() * reconnectDelay) : delay;
  }

  #wait(delay) {
    this.#reconnectAt = now() + delay;
    this.#start("reconnect", Math.ceil(delay), () => {
      // A busy Node counts from when its loop last looked at the clock, so timers may
      // fire early; a slot that the server announced is not to be taken before its time.
      const rest = this.#reconnectAt - now();
      if (rest > 0) this.#wait(rest);
      else this.#dial();
    });
  }

  #ended(end) {
    const opened = this.#openedAt > 0;
    this.#socket = null;
    this.#enter("closed");
    this.#emit("close", { ...end, opened, willReconnect: false });
  }

  // ---- the page's and the network's news ----

  #listen() {
    if (this.#listening) return;
    this.#listening = true;
    globalThis.addEventListener?.("online", this.#onOnline);
    globalThis.addEventListener?.("offline", this.#onOffline);
    globalThis.document?.addEventListener("visibilitychange", this.#onVisibility);
  }

  #unlisten() {
    this.#listening = false;
    globalThis.removeEventListener?.("online", this.#onOnline);
    globalThis.removeEventListener?.("offline", this.#onOffline);
    globalThis.document?.removeEventListener("visibilitychange", this.#onVisibility);
  }

  #onOnline = () => { this.#attempt = 0; this.#nudge(); };
  // "offline" is often wrong and never final: ask the server instead of closing.
  #onOffline = () => this.#ask();
  #onVisibility = () => { if (globalThis.document.visibilityState === "visible") this.#nudge(); };

  /** Beats out of turn, unless the client's beats are off. */
  #ask() { if (this.#timers.has("beat") || this.#timers.has("quiet")) this.#beat(); }

  /** Something changed for the better: ask an open connection, bring a waiting one forward. */
  #nudge() {
    this.#ask();
    if (this.#state !== "waiting" || this.#slotAnnounced) return;
    // With jitter: everybody behind the same network hears of it at the same moment.
    const delay = Math.random() * this.#options.reconnectDelay;
    if (now() + delay < this.#reconnectAt) this.#wait(delay);
  }

  // ---- timers and events ----

  #start(name, ms, callback, repeats = false) {
    this.#stop(name);
    const handle = repeats
      ? setInterval(callback, ms)
      : setTimeout(() => { this.#timers.delete(name); callback(); }, ms);
    this.#timers.set(name, { handle, repeats });
  }

  #stop(name) {
    const timer = this.#timers.get(name);
    if (!timer) return;
    this.#timers.delete(name);
    if (timer.repeats) clearInterval(timer.handle);
    else clearTimeout(timer.handle);
  }

  #stopAll() { for (const name of this.timers) this.#stop(name); }

  /** Leaves nothing that could act by itself: no timer, no listener. */
  #rest() {
    this.#stopAll();
    this.#unlisten();
  }

  #enter(state) {
    const previous = this.#state;
    this.#state = state;
    if (state !== previous) this.#emit("state", { state, previous });
  }

  #emit(type, detail) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        // The listener's fault is told, but must not stop the heartbeat.
        if (typeof reportError === "function") reportError(error);
        else queueMicrotask(() => { throw error; });
      }
    }
  }
}

/** Monotonic milliseconds. */
function now() { return performance.now(); }

function checkedOptions(options) {
  for (const name of Object.keys(options)) {
    if (!Object.hasOwn(DEFAULTS, name)) throw new TypeError(`unknown option ${name}`);
  }
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const all = { ...DEFAULTS, ...given };
  for (const [name, standard] of Object.entries(DEFAULTS)) {
    if (typeof standard !== "number") continue;
    if (!(all[name] >= 0 && all[name] <= TIMER_MS_MAX)) throw new TypeError(`${name}: a number from 0 to ${TIMER_MS_MAX}`);
  }
  if (![null, "text", "ping", "none"].includes(all.heartbeatMode)) {
    throw new TypeError('heartbeatMode: "text", "ping", "none", or null for the server\'s own');
  }
  if (all.getToken !== null && typeof all.getToken !== "function") throw new TypeError("getToken: a function");
  return Object.freeze(all);
}

function checkedURL(url, { heartbeatMode, serverInterval }) {
  const address = new URL(url, globalThis.location?.href);
  address.protocol = address.protocol.replace(/^http/, "ws");
  if (!/^wss?:$/.test(address.protocol)) throw new TypeError(`${address.protocol} isn't ws: or wss:`);
  address.hash = "";
  // What the caller's own URL says wins.
  const ask = (name, value) => { if (!address.searchParams.has(name)) address.searchParams.set(name, value); };
  ask("errors", "close"); // a browser can't see the status of a refused upgrade
  if (heartbeatMode) ask("heartbeat", heartbeatMode);
  if (serverInterval > 0) ask("heartbeat_interval", `${serverInterval}ms`);
  return address;
}

/** The protocol's own messages are small JSON objects with a type; null for anything else. */
function protocolMessage(data) {
  if (typeof data !== "string" || data.length > PROTOCOL_CHARS_MAX || !data.includes('"type"')) return null;
  try {
    const message = JSON.parse(data);
    return typeof message?.type === "string" ? message : null;
  } catch {
    return null; // an ordinary message that only looks like it
  }
}

/** Reads "slug; retry-after=SECONDS"; null where there is none. */
function retryAfter(reason) {
  const match = /(?:^|;)\s*retry-after=(\d{1,9}(?:\.(\d{1,6}))?)\s*(?:;|$)/.exec(reason ?? "");
  if (!match) return null;
  const widthMs = 1000 / 10 ** (match[2]?.length ?? 0);
  return { ms: Math.min(Number(match[1]) * 1000, RETRY_AFTER_MS_MAX), widthMs };
}

/** A queued buffer is the queue's own, as one given to WebSocket.send is the socket's. */
function copied(data) {
  if (data instanceof ArrayBuffer) return data.slice(0);
  if (ArrayBuffer.isView(data)) return data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
  return data;
}
