#!/usr/bin/env node
// Many clients behind one restart: do they come back as they were told, and never as a herd?
//
//   node restart.mjs BINARY [--clients 10000] [--reconnect-rate 250] [--drain-rate 50000]
//                    [--bins 20] [--processes 2] [--json FILE] [--plot FILE.svg]
//
// Real clients (pulsewheel.js over ws) beat against the real server. It is ended twice
// and started again at once, as a supervisor does: by SIGTERM, so that each client reads
// its own retry-after, and by SIGKILL, so that no client hears anything. Exit 0 when the
// bounds below hold, 1 when not, 2 for a wrong call.

import { fork } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { Server, check, conclude, freePort, histogram, now, pause, until } from "./harness.mjs";

/** A bin may hold so much more or less than its share of the announced window. */
const UNEVENNESS_MAX = 0.2;
/** Widest pause of a client that is told nothing (reconnectDelayMax). */
const BACKOFF_CAP_MS = 60_000;
/** A connection that lasted so long starts the back-off anew; also how long a second wave is watched for. */
const SETTLE_MS = 11_000;
/** Lateness of timers and connecting on a busy machine. */
const LATE_MS = 1_500;
/** Standstill of a client process beyond which a run isn't judged, and how many runs there may be. */
const LAG_MS = 300;
const TRIES_MAX = 3;
/** In which the losses of all are heard of. */
const TOLD_MS = 500;

class Crowd {
  lagMax = 0; // longest standstill of a process since it was set to 0

  constructor(processes) {
    this.members = Array.from({ length: processes }, () => {
      const child = fork(new URL("restart-clients.mjs", import.meta.url));
      const member = { child, open: 0, returned: 0, collected: null };
      child.on("message", ({ fates, lag, ...counts }) => {
        Object.assign(member, counts);
        if (lag > this.lagMax) this.lagMax = lag;
        if (!fates) return;
        member.returned = 0; // from here on it is counted anew
        member.collected(fates);
      });
      return member;
    });
  }

  start(url, clients) {
    const each = Math.ceil(clients / this.members.length);
    this.members.forEach(({ child }, i) => child.send({ open: { url, count: Math.min(each, clients - i * each), source: i + 1 } }));
  }

  get open() { return this.members.reduce((sum, member) => sum + member.open, 0); }
  get returned() { return this.members.reduce((sum, member) => sum + member.returned, 0); }

  async collect() {
    const parts = await Promise.all(this.members.map((member) => new Promise((done) => {
      member.collected = done;
      member.child.send({ collect: true });
    })));
    return parts.flat();
  }

  close() { for (const { child } of this.members) child.send({ close: true }); }
  kill() { for (const { child } of this.members) child.kill("SIGKILL"); }
}

const slotOf = (reason) => Number(/retry-after=([\d.]+)/.exec(reason)?.[1] ?? NaN) * 1000;
const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
const round = (ms) => Math.round(ms);

/** Ends the server, starts it again at once, and waits for everybody. */
async function restart(server, crowd, clients, signal, limitMs) {
  await crowd.collect();
  const from = now();
  const exit = await server.stop(signal);
  await server.start();
  const up = now() - from;
  await pause(TOLD_MS); // thousands of losses at once do hold a process up
  crowd.lagMax = 0;
  const returned = await until(() => crowd.returned === clients, limitMs);
  const lagMax = round(crowd.lagMax);
  await pause(SETTLE_MS);
  return { exit, up, returned, lagMax, fates: await crowd.collect() };
}

/** Restarts by SIGTERM; again, if a busy machine held the clients up so long that their times tell nothing about them. */
async function restartUndisturbed(server, crowd, clients, limitMs) {
  for (let tries = 1; ; tries++) {
    const run = await restart(server, crowd, clients, "SIGTERM", limitMs);
    if (run.lagMax <= LAG_MS || tries === TRIES_MAX) return run;
    console.log(`     the machine held the clients up for ${run.lagMax} ms: again`);
  }
}

/** What both restarts must have in common, and the times from their beginning. */
function common(name, { exit, up, returned, fates }, want) {
  check(`${name}: the server ended as asked`, exit === want, `${exit}, up again after ${round(up)} ms`);
  check(`${name}: everybody came back`, returned && fates.every(({ back }) => back.length > 0), `${fates.filter(({ back }) => back.length > 0).length} of ${fates.length}`);
  const again = fates.filter(({ lost, back }) => lost.length !== 1 || back.length !== 1).length;
  check(`${name}: lost once and back once, so no second wave of losses`, again === 0, `${again} others`);
  const whole = fates.filter(({ lost, back }) => lost.length > 0 && back.length > 0);
  // A process hears of its thousands of losses in one bunch, some tenths of a second
  // late: times count from when half of all had been told.
  const lost = whole.map((fate) => fate.lost[0]).sort((a, b) => a - b);
  const told = quantile(lost, 0.5);
  const back = whole.map((fate) => fate.back[0] - told).sort((a, b) => a - b);
  const tries = whole.reduce((sum, fate) => sum + fate.tries.length, 0);
  return { whole, back, tries, toldWithin: round(lost.at(-1) - lost[0]) };
}

function judgeSlots(run, clients, rate, binCount) {
  const { whole, back, tries, toldWithin } = common("SIGTERM", run, 0);
  const windowMs = clients / rate * 1000;
  const widthMs = windowMs / binCount;
  const bins = histogram(back, widthMs, binCount);
  const share = clients / binCount;
  const early = whole.filter((fate) => fate.tries[0] - fate.lost[0] < slotOf(fate.reasons[0]));
  const late = whole.filter((fate) => fate.tries[0] - fate.lost[0] > slotOf(fate.reasons[0]) + 1000 + LATE_MS);
  const worst = Math.max(...bins.map((count) => Math.abs(count / share - 1)));
  const refused = whole.filter((fate) => fate.tries.length > 1).length;
  const unannounced = whole.filter((fate) => Number.isNaN(slotOf(fate.reasons[0]))).length;
  check("SIGTERM: everybody read a slot", unannounced === 0, `${unannounced} didn't; told within ${toldWithin} ms`);
  check("SIGTERM: nobody tried before its slot, nobody long after it", early.length + late.length === 0, `${early.length} early, ${late.length} late`);
  check(`SIGTERM: evenly over the announced ${windowMs / 1000} s, ± ${UNEVENNESS_MAX * 100} % per ${widthMs / 1000} s`, worst <= UNEVENNESS_MAX, `${(worst * 100).toFixed(1)} %: ${bins.join(" ")}`);
  const beyond = back.filter((time) => time >= windowMs + LATE_MS).length;
  check("SIGTERM: nobody after the window", beyond === 0, `${beyond}; ${refused} met a closed port first`);
  return { window_ms: windowMs, bin_ms: widthMs, bins, unevenness: worst, told_within_ms: toldWithin, refused_first: refused, tries, up_after_ms: round(run.up), back_ms: quantiles(back), times: back };
}

function judgeBlind(run) {
  const { back, tries, whole } = common("SIGKILL", run, "SIGKILL");
  const announced = whole.filter((fate) => !Number.isNaN(slotOf(fate.reasons[0]))).length;
  check("SIGKILL: nobody was told anything", announced === 0, `${announced} were`);
  check("SIGKILL: everybody within twice the back-off's cap", quantile(back, 1) <= 2 * BACKOFF_CAP_MS, `the last after ${round(quantile(back, 1))} ms`);
  const widthMs = 500;
  const bins = histogram(back, widthMs, Math.ceil((quantile(back, 1) + 1) / widthMs));
  const peak = bins.indexOf(Math.max(...bins));
  const fall = bins.findIndex((count, i) => i > peak && count < bins[peak] / 2);
  const wave = fall < 0 ? 0 : Math.max(...bins.slice(fall));
  check("SIGKILL: one wave that ebbs away", wave < bins[peak] / 2, bins.join(" "));
  return { bin_ms: widthMs, bins, tries, up_after_ms: round(run.up), back_ms: quantiles(back), times: back };
}

const quantiles = (sorted) => ({ p50: round(quantile(sorted, 0.5)), p90: round(quantile(sorted, 0.9)), p99: round(quantile(sorted, 0.99)), max: round(quantile(sorted, 1)) });

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      clients: { type: "string", default: "10000" }, "reconnect-rate": { type: "string", default: "250" }, "drain-rate": { type: "string", default: "50000" },
      bins: { type: "string", default: "20" }, processes: { type: "string", default: "2" }, json: { type: "string" }, plot: { type: "string" },
    },
  });
  const [clients, rate, binCount, processes] = ["clients", "reconnect-rate", "bins", "processes"].map((name) => Number(values[name]));
  if (positionals.length !== 1 || !(clients > 0 && rate > 0 && binCount > 0 && processes > 0)) {
    console.error("usage: node restart.mjs BINARY [--clients N] [--reconnect-rate N] [--drain-rate N] [--bins N] [--processes N] [--json FILE] [--plot FILE.svg]");
    return 2;
  }
  const server = new Server(resolve(positionals[0]), await freePort(), await freePort(), ["--reconnect-rate", `${rate}`, "--drain-rate", values["drain-rate"]]);
  const crowd = new Crowd(processes);
  const figures = { clients, reconnect_rate: rate, drain_rate: Number(values["drain-rate"]) };
  try {
    await server.start();
    crowd.start(server.url, clients);
    const opened = await until(() => crowd.open === clients, 30_000);
    check("everybody is connected", opened, `${crowd.open} of ${clients}`);
    figures.slots = judgeSlots(await restartUndisturbed(server, crowd, clients, clients / rate * 1000 + 30_000), clients, rate, binCount);
    figures.blind = judgeBlind(await restart(server, crowd, clients, "SIGKILL", 2 * BACKOFF_CAP_MS));
    crowd.close();
  } finally {
    crowd.kill();
    await server.end();
  }
  if (values.plot) {
    const { plotRestart } = await import("./restart-plot.mjs"); // its library is large, and a test has no use for it
    await writeFile(values.plot, plotRestart(figures));
  }
  for (const part of [figures.slots, figures.blind]) delete part.times;
  if (values.json) await writeFile(values.json, `${JSON.stringify(figures, null, 2)}\n`);
  return conclude();
}

process.exitCode = await main();
