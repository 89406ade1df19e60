// The chart of the usage page.  The numbers are the page's own (data-chart); the table below has them
// too, so nothing is lost without this file.

const panel = document.getElementById("usage-chart");
if (panel) {
  const place = panel.querySelector(".chart");
  const told = JSON.parse(panel.dataset.chart);
  const step = told.step_s;
  let shown = panel.dataset.shown;
  let plot;
  panel.hidden = false;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const two = (n) => String(n).padStart(2, "0");

  function amount(value, fine) {
    if (value == null) return "-";
    if (shown === "spend") {
      const places = fine ? (value && value < 1 ? 4 : 2) : value >= 10 || !value ? 0 : value >= 0.1 ? 2 : 4;
      return "$" + value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
    }
    if (shown === "first") return Math.round(value).toLocaleString("en") + " ms";
    if (fine) return value.toLocaleString("en");
    for (const [size, letter] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]])
      if (value >= size) return +(value / size).toFixed(2) + letter;
    return String(+value.toFixed(2));
  }

  function moment(seconds) {
    const at = new Date(seconds * 1000);
    const day = `${at.getUTCFullYear()}-${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
    return step < 86400 ? `${day} ${two(at.getUTCHours())}:00` : day;
  }

  function ticks(_, seconds) {
    let day = "";
    return seconds.map((s) => {
      const at = new Date(s * 1000);
      const date = `${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
      if (step >= 86400) return date;
      const text = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
      const line = date === day ? text : `${text}\n${date}`;
      day = date;
      return line;
    });
  }

  function draw() {
    const curves = told.curves[shown];
    const stacked = shown !== "first";
    const muted = colour("--pico-muted-color");
    const grid = { stroke: colour("--pico-muted-border-color"), width: 0.5 };
    const others = curves.length > 7 ? curves.length - 1 : -1;
    const paint = (n) => colour(n === others ? "--c8" : `--c${(n % 7) + 1}`);
    const heights = [];
    const sum = told.starts.map(() => 0);
    for (const curve of curves) {
      curve.values.forEach((value, n) => (sum[n] += value ?? 0));
      heights.push(stacked ? [...sum] : curve.values);
    }
    // The whole pile first: what is drawn after it covers its lower part.
    const order = curves.map((_, n) => n);
    if (stacked) order.reverse();
    const middle = (start) => start + step / 2;
    const bars = uPlot.paths.bars({ size: [0.78, 44] });
    const few = told.starts.length < 60;
    const series = order.map((n) => ({
      label: curves[n].name,
      stroke: paint(n),
      fill: stacked ? paint(n) : undefined,
      width: stacked ? 0 : 2,
      paths: stacked ? bars : undefined,
      points: { show: !stacked && few, size: 5, fill: paint(n) },
      spanGaps: true,
      value: (_, __, ___, at) => (at == null ? "" : amount(curves[n].values[at], true)),
    }));
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const options = {
      width: place.clientWidth,
      height: Math.max(240, Math.min(320, place.clientWidth * 0.5)),
      legend: { markers: { width: 0, fill: (_, at) => paint(order[at - 1]) } },
      cursor: { points: { show: !stacked }, y: false, drag: { x: false, y: false } },
      scales: {
        x: { time: true, range: [told.starts[0] - step * 0.1, told.starts.at(-1) + step * 1.1] },
        y: { range: (_, __, top) => [0, top > 0 ? top * 1.08 : 1] },
      },
      series: [{ label: panel.dataset.unitTime, value: (_, at) => (at == null ? "" : moment(at - step / 2)) }, ...series],
      axes: [
        {
          stroke: muted, grid: { show: false }, ticks: grid, font, space: 64,
          splits: (u) => told.starts.filter((_, n) => n % Math.ceil(told.starts.length / Math.max(2, u.width / 76)) === 0).map(middle),
          values: (u, splits) => ticks(u, splits.map((s) => s - step / 2)),
        },
        {
          stroke: muted, grid, ticks: { show: false }, font, size: 66,
          label: panel.dataset[`unit${shown[0].toUpperCase()}${shown.slice(1)}`],
          labelFont: font, labelSize: 22,
          values: (_, splits) => splits.map((v) => amount(v, false)),
        },
      ],
    };
    plot?.destroy();
    plot = new uPlot(options, [told.starts.map(middle), ...order.map((n) => heights[n])], place);
    for (const button of panel.querySelectorAll("[data-show]"))
      button.setAttribute("aria-pressed", String(button.dataset.show === shown));
  }

  panel.addEventListener("click", (event) => {
    const button = event.target.closest("[data-show]");
    if (!button) return;
    shown = button.dataset.show;
    draw();
  });
  document.addEventListener("theme", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = place.clientWidth;
  new ResizeObserver(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    draw();
  }).observe(place);
  draw();
}
