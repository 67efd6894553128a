// The picture of restart.mjs: who came back when. ECharts draws; this only says what.

import { init } from "echarts";
import { histogram } from "./harness.mjs";

const WIDTH = 860;
const HEIGHT = 560;
const COLORS = { told: "#0b7a4b", untold: "#b3123f", band: "#0b7a4b22" };
const PLAIN = { animation: false, silent: true, barWidth: "92%", type: "bar" };

const seconds = (ms) => `${ms / 1000}`;

/** One panel's axes; a bar stands over the middle of its bin, so the labels are the bins' beginnings. */
function axes(index, bins, widthMs) {
  return {
    x: {
      gridIndex: index, type: "category", data: bins.map((_, i) => seconds(i * widthMs)), name: "seconds", nameLocation: "middle", nameGap: 26,
      axisLabel: { interval: Math.ceil(bins.length / 20) - 1 }, axisTick: { show: false },
    },
    y: { gridIndex: index, type: "value", name: "connections", nameTextStyle: { align: "left" }, splitNumber: 4 },
  };
}

/** Draws the returns of both restarts as an SVG document. */
export function plotRestart({ clients, reconnect_rate: rate, slots, blind }) {
  const widthMs = slots.bin_ms;
  const shown = histogram(slots.times, widthMs, slots.bins.length + 2); // two more, to show that nothing follows
  const share = clients / slots.bins.length;
  const untold = histogram(blind.times.map((time) => time - Math.min(0, blind.times[0])), 100, Math.ceil((blind.back_ms.max + 500) / 100));
  const [top, bottom] = [axes(0, shown, widthMs), axes(1, untold, 100)];
  const count = clients.toLocaleString("en");
  const chart = init(null, null, { renderer: "svg", ssr: true, width: WIDTH, height: HEIGHT });
  chart.setOption({
    backgroundColor: "#ffffff",
    textStyle: { fontFamily: "sans-serif" },
    title: [
      { text: `${count} clients, SIGTERM: each keeps the slot it was told (${rate} a second)`, subtext: "returns per bin; shaded: an even share ± 20 %", left: 16, top: 8, textStyle: { fontSize: 14 } },
      { text: `${count} clients, SIGKILL: nobody was told anything, full jitter`, subtext: "returns per 0.1 s", left: 16, top: 296, textStyle: { fontSize: 14 } },
    ],
    grid: [{ left: 70, right: 24, top: 84, height: 150 }, { left: 70, right: 24, top: 372, height: 130 }],
    xAxis: [top.x, bottom.x],
    yAxis: [top.y, bottom.y],
    series: [
      {
        ...PLAIN, xAxisIndex: 0, yAxisIndex: 0, data: shown, itemStyle: { color: COLORS.told },
        markArea: { silent: true, itemStyle: { color: COLORS.band }, data: [[{ yAxis: share * 0.8 }, { yAxis: share * 1.2 }]] },
      },
      { ...PLAIN, xAxisIndex: 1, yAxisIndex: 1, data: untold, itemStyle: { color: COLORS.untold } },
    ],
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${svg}\n`;
}
