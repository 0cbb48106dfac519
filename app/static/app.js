// What the page does by itself: the address follows the view, plots keep their zoom, keys move, the threshold strikes out.
window.lab = (() => {
  const meta = name => document.querySelector(`meta[name="${name}"]`)?.content ?? '';

  function sync(changes) {
    const url = new URL(location);
    for (const [key, value] of Object.entries(changes)) {
      if (value === null || value === undefined || value === '') url.searchParams.delete(key);
      else url.searchParams.set(key, value);
    }
    if (url.href !== location.href) history.replaceState(null, '', url);
  }

  let plotly;
  function loaded() {
    plotly ??= new Promise((done, failed) => {
      const script = document.createElement('script');
      script.src = meta('labkit-plotly');
      script.onload = () => done(window.Plotly);
      script.onerror = failed;
      document.head.append(script);
    });
    return plotly;
  }

  function plot(element, props, watch) {
    const div = element.querySelector('.plot');
    const night = () => document.body.classList.contains('dark');
    async function draw() {
      if (!props.value) { if (div._fullLayout) window.Plotly.purge(div); element.classList.add('blank'); return; }
      element.classList.remove('blank');
      const spec = JSON.parse(props.value), ink = night() ? '#d5dae1' : '#3c4654';
      spec.layout.font.color = ink;
      for (const note of spec.layout.annotations ?? []) note.font = {...note.font, color: ink, size: 12};
      for (const trace of spec.data) {
        if (trace.error_y) trace.error_y.color = night() ? '#f2f4f7' : '#1b2330';
        if (trace.name?.startsWith('95 %')) trace.marker.color = night() ? '#f2f4f7' : '#1b2330';
        if (trace.name === 'chance') { trace.marker.color = ink; trace.marker.line.color = ink; }
      }
      div.style.minHeight = spec.layout.height + 'px';
      if (spec.layout.meta?.alt) div.setAttribute('aria-label', spec.layout.meta.alt);
      const Plotly = await loaded();
      if (div.isConnected) Plotly.react(div, spec.data, spec.layout,
        {responsive: true, displaylogo: false, displayModeBar: 'hover', modeBarButtonsToRemove: ['select2d', 'lasso2d']});
    }
    const seen = new IntersectionObserver(found => {
      if (found.some(one => one.isIntersecting)) { if (div._fullLayout) window.Plotly.Plots.resize(div); else draw(); }
    });
    seen.observe(div);
    watch('value', draw);
    element.classList.toggle('blank', !props.value);
    new MutationObserver(() => { if (div._fullLayout) draw(); }).observe(document.body, {attributeFilter: ['class']});
  }

  function live(element, trigger, watch) {
    const update = () => {
      for (const one of element.querySelectorAll('[data-url]')) sync(JSON.parse(one.dataset.url));
      for (const one of element.querySelectorAll('[data-mark]')) mark(one.dataset.mark);
      for (const one of element.querySelectorAll('[data-threshold]')) strike(one);
      for (const one of element.querySelectorAll('[data-errors]')) refuse(JSON.parse(one.dataset.errors));
    };
    element.addEventListener('click', event => {
      const one = event.target.closest('[data-pick]');
      if (one) trigger('click', {pick: one.dataset.pick});
      const copied = event.target.closest('[data-copy]');
      if (copied) copy(copied);
    });
    element.addEventListener('input', event => { if (event.target.matches('[data-threshold]')) strike(event.target); });
    watch('value', update);
    update();
  }

  // what is wrong with a setting stands at its field
  function refuse(errors) {
    for (const field of document.querySelectorAll('[id^="set-"]')) {
      const why = errors[field.id.slice(4)], input = field.querySelector('input, textarea');
      let note = field.querySelector('.field-error');
      field.classList.toggle('bad', Boolean(why));
      if (why) input?.setAttribute('aria-invalid', 'true'); else input?.removeAttribute('aria-invalid');
      if (!why) { note?.remove(); continue; }
      if (!note) { note = document.createElement('div'); note.className = 'field-error'; field.append(note); }
      note.textContent = '✗ ' + why;
    }
  }

  function copy(button) {
    const text = document.getElementById(button.dataset.copy)?.textContent ?? '', label = button.textContent;
    navigator.clipboard?.writeText(text).then(() => {
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = label; }, 1200);
    });
  }

  // "list: pick" marks one item of a list as the current one
  function mark(what) {
    const [list, pick] = JSON.parse(what);
    for (const one of document.querySelectorAll(`#${list} [data-pick]`)) {
      if (one.dataset.pick === pick) {
        one.setAttribute('aria-current', 'true');
        const box = one.closest('.scroller');
        if (box && (one.offsetTop < box.scrollTop || one.offsetTop + one.offsetHeight > box.scrollTop + box.clientHeight))
          box.scrollTop = one.offsetTop - box.clientHeight / 3;
      } else one.removeAttribute('aria-current');
    }
  }

  // A trace is struck out if its ROUGE-L with one kept before it is above the threshold: the rule of the sampler.
  function strike(slider) {
    const panel = slider.closest('.diversity'), at = Number(slider.value);
    panel.querySelector('output').textContent = at.toFixed(2);
    for (const table of panel.querySelectorAll('table[data-draws]')) {
      const draws = table.dataset.draws.split(' '), rows = [...table.tBodies[0].rows], kept = [], out = [];
      rows.forEach((row, i) => {
        const close = kept.some(j => Number(row.cells[j + 1].dataset.v) > at);
        if (close) out.push(i); else kept.push(i);
        [...row.cells].slice(1).forEach((cell, j) => cell.classList.toggle('over', i !== j && Number(cell.dataset.v) > at));
      });
      rows.forEach((row, i) => {
        const gone = out.includes(i);
        row.cells[0].classList.toggle('struck', gone);
        table.tHead.rows[0].cells[i + 1].classList.toggle('struck', gone);
        document.getElementById(draws[i])?.classList.toggle('struck', gone);
      });
      const told = table.closest('.heat-box').querySelector('.told');
      if (told) told.textContent = out.length ? `${out.length} of ${rows.length} would be rejected` : `all ${rows.length} would be kept`;
    }
  }

  const typing = node => node.closest('input, textarea, select, [contenteditable], [role=listbox]');
  const shown = node => node && node.offsetParent !== null;
  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Escape' && typing(event.target)) { event.target.blur(); return; }
    if (typing(event.target)) return;
    const button = [...document.querySelectorAll({j: '.key-j', k: '.key-k'}[event.key] ?? '.none')].find(shown);
    if (button) { event.preventDefault(); button.click(); }
    if (event.key === '/') {
      const search = [...document.querySelectorAll('.key-search textarea, .key-search input')].find(shown);
      if (search) { event.preventDefault(); search.focus(); search.select(); }
    }
    if (event.key === '[' || event.key === ']') {
      const cards = [...document.querySelectorAll('.trace')].filter(shown);
      if (!cards.length) return;
      const at = cards.indexOf(document.activeElement.closest('.trace'));
      const next = cards[Math.min(cards.length - 1, Math.max(0, at + (event.key === ']' ? 1 : -1)))];
      event.preventDefault();
      next.focus();
      next.scrollIntoView({block: 'nearest'});
    }
  }
  document.addEventListener('keydown', key);

  // a document made by the server becomes a file in the browser's downloads; the places that held it are emptied
  function save(name, text) {
    if (text) {
      const link = document.createElement('a');
      link.href = URL.createObjectURL(new Blob([text], {type: 'text/html'}));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }
    return ['', ''];
  }

  const token = () => meta('labkit-token');
  // the last input of an event that changes something is the token's place
  const signed = (...values) => { values[values.length - 1] = token(); return values; };
  // Gradio selects the first tab by itself before the page knows which one the address asks for: that is no choice of anybody
  let opened = false;
  const ready = () => { opened = true; };
  const select = (tab, values) => { if (opened) sync({tab}); return [opened ? tab : '', ...values.slice(1)]; };
  const dark = () => { document.body.classList.toggle('dark'); };
  return {sync, plot, live, save, signed, ready, select, dark};
})();
