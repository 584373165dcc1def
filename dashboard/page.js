// Charts are the same for all viewers: the server makes them once for each refresh, and every browser fetches them.
let newestLook = -1;

async function fillCharts(look, elements) {
  newestLook = look;
  const answer = await fetch(`charts/${look}`);
  if (!answer.ok) return;
  const charts = await answer.json();
  for (const [sensor, id] of Object.entries(elements)) {
    const options = charts[sensor];
    if (!options) continue;
    while (newestLook === look && document.getElementById(`c${id}`) && !getElement(id)?.chart)
      await new Promise((resolve) => setTimeout(resolve, 20));
    if (newestLook !== look) return;
    options.tooltip.valueFormatter = (value) => (value == null ? "no value" : String(+value.toPrecision(7)));
    getElement(id)?.chart?.setOption(options, { replaceMerge: ["series"] });
  }
  document.documentElement.dataset.drawn = look;
}
