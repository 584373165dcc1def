// Charts are the same for all viewers: the server creates them once per refresh, and every browser fetches them.
let newestRefresh = -1;

async function fillCharts(refresh, elements) {
  newestRefresh = refresh;
  const response = await fetch(`charts/${refresh}`);
  if (!response.ok) return;
  const charts = await response.json();
  for (const [sensor, id] of Object.entries(elements)) {
    const options = charts[sensor];
    if (!options) continue;
    while (newestRefresh === refresh && document.getElementById(`c${id}`) && !getElement(id)?.chart)
      await new Promise((resolve) => setTimeout(resolve, 20));
    if (newestRefresh !== refresh) return;
    options.tooltip.valueFormatter = (value) => (value == null ? "no value" : String(+value.toPrecision(7)));
    getElement(id)?.chart?.setOption(options, { replaceMerge: ["series"] });
  }
  document.documentElement.dataset.drawn = refresh;
}
