// What the page shows while gradio sets itself up: the bar and the cards that came with it, as plain HTML in the same
// places. Nobody can press it, read it out or find it, and it is gone once gradio shows the same.
(() => {
  const GIVE_UP_MS = 30_000;
  const WHOLE = { download: '#catalog', models: '#models-list', playground: '#chat-input' };  // what each tab ends with
  const { components, theme_hash: look } = window.gradio_config;
  const of = (id) => components.find(({ props }) => props.elem_id === id)?.props;
  const put = (...ids) => ids.map((id) => `<div class="block" id="${id}">${of(id)?.value ?? ''}</div>`).join('');
  const tabs = components.filter(({ type }) => type === 'tabitem').map(({ props }) => props);
  const open = of('nav')?.selected ?? tabs[0]?.id;

  const panes = {
    download: () => `${put('download-head')}<div class="row mi-first-row"><div class="mi-panel"></div>`
      + `<div class="mi-side">${put('downloads', 'catalog', 'download-hints')}</div></div>`,
    models: () => `${put('models-head')}<div class="mi-first-toolbar"></div>${put('storage-summary', 'models-list')}`,
  };
  const button = ({ id, label }) =>
    `<button role="tab" id="tab-${id}-button" class="${id === open ? 'selected' : ''}">${label}</button>`;
  const page = () => `<div class="gradio-container mi-first">${put('brand')}
    <div id="nav"><div class="tab-wrapper"><div class="tab-container">${tabs.map(button).join('')}</div></div>
    <div class="tabitem"><div class="column">${panes[open]?.() ?? ''}</div></div></div>
    <div class="row" id="status-bar">${put('status-live', 'status-address')}</div></div>`;

  const link = (href) => Object.assign(document.createElement('link'), { rel: 'stylesheet', href });
  const seen = (selector) => document.querySelector(selector)?.getClientRects().length;

  // gradio asks for the sheet with the fonts once it runs, unless it is there
  document.head.append(link(new URL(`theme.css?v=${look}`, document.baseURI).href));
  const host = Object.assign(document.createElement('div'), { inert: true, ariaHidden: 'true' });
  host.style.visibility = 'hidden';  // until its sheet is there
  const shadow = host.attachShadow({ mode: 'closed' });
  shadow.innerHTML = page();
  shadow.querySelector('#status-address code')?.append(`${location.host}/v1`);
  shadow.prepend(link(document.querySelector('link[rel=preload][as=style]').href));
  document.body.prepend(host);

  const wait = () => {
    const whole = seen('#status-live .mi-status') && (!WHOLE[open] || seen(WHOLE[open]));
    if (whole || performance.now() > GIVE_UP_MS) host.remove();
    else requestAnimationFrame(wait);
  };
  requestAnimationFrame(wait);
})();
