// The report page: charts by dygraphs over the data that quest-norms put into the page.
'use strict';
(function () {
  const runs = JSON.parse(document.getElementById('data').textContent).runs;
  const COLOURS = ['#1c5d99', '#d1495b', '#2e933c', '#8a4fbf', '#c77d0a', '#0b7a75', '#7a5c3e', '#555e68'];
  const DASHES = [null, [6, 3], [2, 2], [8, 3, 2, 3], [1, 3], [10, 4], [4, 1], [3, 3]];
  // What a layer's heads are reduced to in the heat map: the head that matters most.
  const STATISTICS = {
    logit_max: ['largest logit', Math.max], k_norm_max: ['largest key norm', Math.max],
    q_norm_max: ['largest query norm', Math.max], k_norm_mean: ['mean key norm', Math.max],
    q_norm_mean: ['mean query norm', Math.max], entropy_mean: ['mean entropy (nats)', Math.min],
    entropy_min: ['smallest entropy (nats)', Math.min], qkv_grad_norm: ['gradient norm of Q, K, V weights', Math.max],
  };
  const graphs = [];
  let chosenLayer = 0, heat = null, headGraphs = [], zooming = false;

  function element(tag, attributes, text, parent) {
    const node = Object.assign(document.createElement(tag), attributes || {});
    if (text !== undefined && text !== null) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }

  // ---- zoom all charts together ----

  function follow(source, initial) {
    if (zooming || initial) return;
    zooming = true;
    const window = source.xAxisRange();
    graphs.concat(headGraphs, heat ? [heat] : []).forEach(graph => {
      if (graph !== source) graph.updateOptions({ dateWindow: window });
    });
    zooming = false;
  }

  function currentWindow() {
    return graphs.length ? graphs[0].xAxisRange() : null;
  }

  // ---- line charts ----

  // One row a step that any series has; null where a series has none there.
  function rows(series) {
    const steps = new Map();
    series.forEach((one, column) => one.steps.forEach((step, i) => {
      if (!steps.has(step)) steps.set(step, new Array(series.length).fill(null));
      steps.get(step)[column] = one.values[i];
    }));
    return Array.from(steps.keys()).sort((a, b) => a - b).map(step => [step].concat(steps.get(step)));
  }

  // A thin line at each warning and critical event of the layer (null: of the whole run).
  function drawEvents(layer) {
    return (canvas, area, graph) => runs.forEach(run => run.events.forEach(event => {
      if (event.severity === 'info' || (layer !== null && event.layer !== layer)) return;
      const x = graph.toDomXCoord(event.step);
      if (x < area.x || x > area.x + area.w) return;
      canvas.fillStyle = event.severity === 'critical' ? 'rgba(179,0,27,.45)' : 'rgba(222,150,40,.45)';
      canvas.fillRect(x, area.y, 1.5, area.h);
    }));
  }

  function lineChart(parent, title, series, layer) {
    const box = element('div', { className: 'chart' }, null, parent);
    element('h3', {}, title, box);
    const plot = element('div', { className: 'plot' }, null, box);
    const legend = element('div', { className: 'legend' }, null, box);
    const known = series.flatMap(one => one.values).filter(value => value !== null), positive = known.some(value => value > 0) && !known.some(value => value < 0);
    const options = {
      labels: ['step'].concat(series.map(one => one.name)), labelsDiv: legend, legend: 'onmouseover',
      colors: series.map(one => one.colour), connectSeparatedPoints: true, strokeWidth: 1.4, axisLabelWidth: 56,
      highlightSeriesOpts: { strokeWidth: 2.4 }, digitsAfterDecimal: 4, labelsKMB: true, sigFigs: 4,
      logscale: document.getElementById('log').checked && positive, drawCallback: follow, underlayCallback: drawEvents(layer),
      series: Object.fromEntries(series.map(one => [one.name, { strokePattern: one.dash }])),
    };
    const graph = new Dygraph(plot, rows(series), options);
    const window = currentWindow();
    if (window && layer !== null) graph.updateOptions({ dateWindow: window });
    return graph;
  }

  function modelSeries(field) {
    return runs.map((run, i) => ({ name: run.name, colour: COLOURS[i % 8], dash: null, steps: run.metrics.step, values: run.metrics[field] }))
      .filter(one => one.values.some(value => value !== null));
  }

  function drawModel() {
    const parent = document.getElementById('model');
    graphs.splice(0).forEach(graph => graph.destroy());
    parent.replaceChildren();
    [['loss', 'Loss'], ['grad_norm', 'Gradient norm'], ['lr', 'Learning rate'], ['images_per_s', 'Images a second']].forEach(([field, title]) => {
      const series = modelSeries(field);
      if (series.length) graphs.push(lineChart(parent, title, series, null));
    });
  }

  // ---- heads of one layer ----

  function headSeries(field) {
    const series = [];
    runs.forEach((run, i) => {
      const layer = run.layers.find(one => one.layer === chosenLayer);
      if (!layer) return;
      (field === 'qkv_grad_norm' ? [layer.qkv_grad_norm] : layer[field]).forEach((values, head) => series.push({
        name: (runs.length > 1 ? run.name + ', ' : '') + (field === 'qkv_grad_norm' ? 'all heads' : 'head ' + head),
        colour: runs.length > 1 ? COLOURS[i % 8] : `hsl(${(head * 137) % 360} 60% 42%)`, dash: DASHES[head % 8], steps: layer.step, values,
      }));
    });
    return series;
  }

  function chooseLayer(layer) {
    chosenLayer = layer;
    document.getElementById('chosen-layer').textContent = layer;
    document.querySelectorAll('#layers button').forEach(button =>
      button.classList.toggle('chosen', Number(button.dataset.layer) === layer));
    const parent = document.getElementById('heads');
    headGraphs.splice(0).forEach(graph => graph.destroy());
    parent.replaceChildren();
    ['q_norm_mean', 'k_norm_mean', 'logit_max', 'entropy_mean', 'k_norm_max', 'qkv_grad_norm'].forEach(field => {
      const series = headSeries(field), title = STATISTICS[field][0];
      if (series.length) headGraphs.push(lineChart(parent, title[0].toUpperCase() + title.slice(1), series, layer));
    });
  }

  function drawLayerButtons() {
    const layers = new Set();
    runs.forEach(run => run.layers.forEach(layer => layers.add(layer.layer)));
    const sorted = Array.from(layers).sort((a, b) => a - b);
    sorted.forEach(layer => {
      const button = element('button', { onclick: () => chooseLayer(layer) }, layer, document.getElementById('layers'));
      button.dataset.layer = layer;
    });
    return sorted;
  }

  // ---- heat map: each layer is a dygraphs series, drawn as a row of cells by a plotter of ours ----

  const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis
  function heatColour(share) {
    const at = Math.min(Math.max(share, 0), 1) * 4, low = Math.min(Math.floor(at), 3);
    return `rgb(${SCALE[low].map((value, i) => Math.round(value + (SCALE[low + 1][i] - value) * (at - low))).join(',')})`;
  }

  function reduceHeads(layer, field) {
    if (field === 'qkv_grad_norm') return layer.qkv_grad_norm;
    return layer.step.map((_, i) => {
      const known = layer[field].map(values => values[i]).filter(value => value !== null);
      return known.length ? STATISTICS[field][1](...known) : null;
    });
  }

  function heatData(run, field) {
    const cells = new Map(); // layer -> step -> value
    run.layers.forEach(layer => {
      const values = reduceHeads(layer, field);
      cells.set(layer.layer, new Map(layer.step.map((step, i) => [step, values[i]])));
    });
    const known = Array.from(cells.values()).flatMap(row => Array.from(row.values())).filter(value => value !== null);
    const low = known.reduce((a, b) => Math.min(a, b), Infinity), high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    const log = low > 0 && high / low > 20; // a range of decades needs a logarithmic colour scale
    const share = value => high === low ? 0.5 : log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    return { cells, share, low, high };
  }

  function drawHeat() {
    const run = runs[Number(document.getElementById('heat-run').value)], field = document.getElementById('heat-statistic').value;
    const holder = document.getElementById('heat'), legend = document.getElementById('heat-legend');
    const layers = run.layers.map(layer => layer.layer), { cells, share, low, high } = heatData(run, field);
    if (heat) heat.destroy();
    heat = null;
    holder.style.height = Math.min(60 + 22 * layers.length, 520) + 'px';
    if (!layers.length) return;
    const range = `${STATISTICS[field][0]}: dark ${low.toPrecision(3)} to bright ${high.toPrecision(3)}`;
    const plotter = e => {
      const layer = layers[e.seriesIndex], row = cells.get(layer), canvas = e.drawingContext, area = e.plotArea;
      const height = Math.abs(e.dygraph.toDomYCoord(0) - e.dygraph.toDomYCoord(1));
      let left = null;
      e.points.forEach((point, i) => {
        const value = row.get(point.xval);
        const after = i + 1 < e.points.length ? e.points[i + 1].canvasx : point.canvasx + (left === null ? 4 : point.canvasx - left);
        const next = Math.min(after, area.x + area.w);
        left = point.canvasx;
        if (value === null || value === undefined || isNaN(value)) return;
        canvas.fillStyle = heatColour(share(value));
        canvas.fillRect(Math.max(point.canvasx, area.x), point.canvasy - height / 2, Math.max(next - point.canvasx, 1) + 0.5, height);
      });
    };
    heat = new Dygraph(holder, rows(run.layers.map(layer => ({ steps: layer.step, values: layer.step.map(() => layer.layer) }))), {
      labels: ['step'].concat(layers.map(layer => 'layer ' + layer)), plotter, axisLabelWidth: 56, legend: 'never', connectSeparatedPoints: true,
      valueRange: [Math.max(...layers) + 0.5, Math.min(...layers) - 0.5], drawCallback: follow, drawHighlightPointCallback: () => {},
      dateWindow: currentWindow(),
      axes: { y: { drawGrid: false, ticker: () => layers.map(layer => ({ v: layer, label: String(layer) })) }, x: { drawGrid: false } },
      highlightCallback: (event, x) => {
        const layer = layerAt(event), value = cells.has(layer) ? cells.get(layer).get(x) : null;
        legend.textContent = `${range}; layer ${layer}, step ${x}: ${value === null || value === undefined ? 'not logged' : value}`;
      },
      clickCallback: event => chooseLayer(layerAt(event)),
    });
    legend.textContent = range;
  }

  function layerAt(event) {
    const y = heat.toDataYCoord(heat.eventToDomCoords(event)[1]), layers = Array.from(document.querySelectorAll('#layers button'));
    return layers.map(button => Number(button.dataset.layer)).reduce((a, b) => Math.abs(b - y) < Math.abs(a - y) ? b : a);
  }

  // ---- text ----

  function drawRuns() {
    const parent = document.getElementById('runs');
    runs.forEach((run, i) => {
      const line = element('p', {}, null, parent);
      element('span', { className: 'swatch', style: `background:${COLOURS[i % 8]}` }, '', line);
      element('b', {}, run.name, line);
      element('span', {}, ` (${run.kind} attention) `, line);
      const colon = run.conclusion.indexOf(':');
      element('span', { className: run.result }, run.conclusion.slice(0, colon), line);
      element('span', {}, run.conclusion.slice(colon), line);
    });
  }

  function drawDifferences() {
    if (runs.length < 2) return;
    const keys = Array.from(new Set(runs.flatMap(run => Object.keys(run.settings)))).sort();
    const different = keys.filter(key => new Set(runs.map(run => run.settings[key])).size > 1);
    const parent = document.getElementById('differences');
    element('h2', {}, 'Where the configurations differ', parent);
    const table = element('table', {}, null, parent), head = element('tr', {}, null, table);
    [''].concat(runs.map(run => run.name)).forEach(name => element('th', {}, name, head));
    different.forEach(key => {
      const row = element('tr', {}, null, table);
      [key].concat(runs.map(run => run.settings[key] === undefined ? '' : run.settings[key])).forEach(text => element('td', {}, text, row));
    });
    if (!different.length) table.replaceWith(element('p', {}, 'They are the same.'));
  }

  function drawEventTable() {
    const table = document.getElementById('events');
    const all = runs.flatMap(run => run.events.map(event => ({ run, event }))).sort((a, b) => a.event.step - b.event.step);
    if (!all.length) element('tr', {}, 'None.', table);
    all.forEach(({ run, event }) => {
      const row = element('tr', {
        onclick: () => {
          if (event.layer !== null) chooseLayer(event.layer);
          const reach = Math.max(200, 2 * (event.step - event.since));
          graphs.slice(0, 1).forEach(graph => graph.updateOptions({ dateWindow: [event.step - reach, event.step + reach] }));
        },
      }, null, table);
      row.dataset.step = event.step;
      element('td', {}, (runs.length > 1 ? run.name + ', ' : '') + 'step ' + event.step, row);
      element('td', { className: event.severity }, event.severity, row);
      element('td', {}, event.kind, row);
      const text = element('td', {}, event.explanation, row);
      if (event.advice) element('div', { className: 'advice' }, event.advice, text);
    });
  }

  // ---- begin ----

  const heatRun = document.getElementById('heat-run'), heatStatistic = document.getElementById('heat-statistic');
  runs.forEach((run, i) => element('option', { value: i }, run.name, heatRun));
  Object.keys(STATISTICS).forEach(field => element('option', { value: field }, STATISTICS[field][0], heatStatistic));
  drawRuns();
  drawDifferences();
  const layers = drawLayerButtons();
  const blamed = runs.flatMap(run => run.events).find(event => event.layer !== null && event.severity === 'critical');
  drawModel();
  drawHeat();
  if (layers.length) chooseLayer(blamed ? blamed.layer : layers[0]);
  drawEventTable();
  heatRun.onchange = heatStatistic.onchange = drawHeat;
  document.getElementById('log').onchange = () => {
    drawModel();
    chooseLayer(chosenLayer);
  };
  document.body.dataset.ready = 'yes';
})();
