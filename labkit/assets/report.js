// Unpacks plotly.js from the page itself and draws its charts in the colours of the theme; prints them light and narrow.
(() => {
  const root = document.documentElement, plots = [...document.querySelectorAll('.plot')];
  const dark = () => getComputedStyle(root).getPropertyValue('color-scheme').trim() === 'dark'
    || (root.dataset.theme !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  let printing = false;

  function draw(plot) {
    const spec = JSON.parse(plot.nextElementSibling.textContent), night = dark() && !printing;
    const ink = night ? '#d5dae1' : '#3c4654', strong = night ? '#f2f4f7' : '#1b2330';
    spec.layout.font.color = ink;
    for (const one of spec.layout.annotations ?? []) one.font = {...one.font, color: ink, size: 12};
    for (const trace of spec.data) {
      if (trace.error_y) trace.error_y.color = strong;
      if (trace.error_x) trace.error_x.color = strong;
      if (trace.name?.startsWith('95 %')) trace.marker.color = strong;
      if (trace.name === 'chance') { trace.marker.color = ink; trace.marker.line.color = ink; }
    }
    if (printing) { spec.layout.width = 670; spec.layout.autosize = false; }
    return Plotly.react(plot, spec.data, spec.layout, {responsive: !printing, displayModeBar: false});
  }
  const redraw = () => window.Plotly && plots.forEach(draw);

  async function unpack() {
    const packed = Uint8Array.from(atob(document.getElementById('plotly').textContent), one => one.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
    const script = document.createElement('script');
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  if (plots.length) unpack().then(redraw, () => {
    for (const plot of plots) { plot.style.minHeight = 0; plot.textContent = plot.getAttribute('aria-label'); }
  });

  const button = document.getElementById('theme');
  button.hidden = false;
  button.addEventListener('click', () => { root.dataset.theme = dark() ? 'light' : 'dark'; redraw(); });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);

  let folded = [];
  addEventListener('beforeprint', () => {
    folded = [...document.querySelectorAll('details:not([open])')];
    for (const one of folded) one.open = true;
    printing = true;
    redraw();
  });
  addEventListener('afterprint', () => {
    for (const one of folded) one.open = false;
    printing = false;
    redraw();
  });
})();
