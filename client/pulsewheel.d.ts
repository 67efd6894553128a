/** Types of pulsewheel.js. Times are milliseconds; README.md says more of each option. */

export type PulsewheelState = "idle" | "connecting" | "open" | "waiting" | "closing" | "closed";

/** What can be sent; a Blob only where the WebSocket class takes one. */
export type PulsewheelData = string | ArrayBuffer | ArrayBufferView | Blob;

/** The least a WebSocket class must be: that of browsers and that of the package ws fit. */
export type WebSocketClass = new (url: string, protocols?: string | string[]) => unknown;

export interface PulsewheelOptions {
  /** Between the client's own beats while open; 0 turns them off. Default 5000. */
  heartbeatInterval?: number;
  /** How the server shall beat; null leaves it the server's own mode. Default "text". */
  heartbeatMode?: "text" | "ping" | "none" | null;
  /** Interval asked of the server, which clamps it; 0 asks for none. Default 0. */
  serverInterval?: number;
  /** From an unanswered beat to the verdict that the server is silent; 0 never. Default 10000. */
  ackTimeout?: number;
  /** For an attempt, getToken included; 0 none. Default 15000. */
  connectTimeout?: number;
  /** False: the first end is final. Default true. */
  reconnect?: boolean;
  /** Ceiling of the first pause, doubled at each further attempt. Default 1000. */
  reconnectDelay?: number;
  /** Ceiling of every pause that the server doesn't set. Default 60000. */
  reconnectDelayMax?: number;
  /** Messages kept while there is no connection. Default 100. */
  queueMax?: number;
  /** Bytes (characters of a string) kept or unsent; an empty queue takes one message of any size. Default 1048576. */
  queueBytesMax?: number;
  /** Called before each attempt; refused is true after the server refused the last one (4401). */
  getToken?: ((context: { refused: boolean }) => string | null | undefined | Promise<string | null | undefined>) | null;
  /** Query parameter that carries the token. Default "token". */
  tokenParam?: string;
  /** Subprotocols to offer. */
  protocols?: string | string[];
  /** False: wait for connect(). Default true. */
  autoConnect?: boolean;
  /** The class to use; default globalThis.WebSocket. */
  WebSocket?: WebSocketClass;
}

/** The server's first message where heartbeatMode is "text". */
export interface PulsewheelHello {
  readonly type: "hello";
  readonly id: string;
  readonly interval_ms: number;
  readonly timeout_ms: number;
  readonly node: string;
}

export interface PulsewheelClose {
  /** As the server or the browser gave it; 4408 where this client found the server silent. */
  code: number;
  reason: string;
  wasClean: boolean;
  /** Whether the connection, or the attempt, had opened before it ended. */
  opened: boolean;
  willReconnect: boolean;
  /** Before the next attempt; present where willReconnect. */
  delay?: number;
  /** Attempts since the last stable connection; present where willReconnect. */
  attempt?: number;
}

export interface PulsewheelEvents {
  state: { state: PulsewheelState; previous: PulsewheelState };
  open: Record<string, never>;
  hello: PulsewheelHello;
  /** Any message but the protocol's own. */
  message: { data: string | ArrayBuffer };
  /** A beat of this client went out. */
  beat: { ts: number };
  /** The server acknowledged one; rtt is missing where the answer matches no beat awaited. */
  ack: { rtt: number | undefined };
  /** A beat of the server came in and was answered. */
  serverbeat: Record<string, never>;
  /** The server answers nothing; close with code 4408 follows. */
  silent: { heardNothingFor: number };
  /** The connection or the attempt ended; final unless willReconnect. */
  close: PulsewheelClose;
  error: { error: unknown };
}

export interface PulsewheelCounts {
  beatsSent: number;
  acks: number;
  serverBeats: number;
  messagesIn: number;
  messagesOut: number;
  opened: number;
  silences: number;
  refusedSends: number;
}

export type PulsewheelTimer = "beat" | "answer" | "quiet" | "hello" | "connect" | "reconnect";

export class PulsewheelClient {
  constructor(url: string | URL, options?: PulsewheelOptions);
  readonly state: PulsewheelState;
  /** What the server granted; null before, and where it wasn't asked. */
  readonly hello: PulsewheelHello | null;
  /** Last round trip of a heartbeat. */
  readonly rtt: number | undefined;
  /** The timers that run; empty once closed. */
  readonly timers: PulsewheelTimer[];
  /** Messages that wait for a connection. */
  readonly queued: number;
  readonly counts: PulsewheelCounts;
  on<T extends keyof PulsewheelEvents>(type: T, listener: (event: PulsewheelEvents[T]) => void): () => void;
  off<T extends keyof PulsewheelEvents>(type: T, listener: (event: PulsewheelEvents[T]) => void): void;
  connect(): void;
  /** False: refused and not kept. True promises no delivery. */
  send(data: PulsewheelData): boolean;
  /** Code 1000, or 3000 to 4999. Leaves no timer. */
  close(code?: number, reason?: string): void;
}
