// What the page does by itself: colours, tabs, copying, and handing button clicks to the manager.
// Buttons are plain HTML that comes and goes, so clicks are caught on the document.
(() => {
  const THEME = 'millm-theme';
  const TAB = 'millm-tab';
  const PATIENCE_MS = 30_000;
  // A browser may refuse its storage; then nothing is remembered.
  const recall = (storage, key) => { try { return window[storage].getItem(key); } catch { return null; } };
  const remember = (storage, key, value) => { try { window[storage].setItem(key, value); } catch { /* not kept */ } };
  const system = matchMedia('(prefers-color-scheme: dark)');
  let chosen = '';
  const dark = () => (chosen || recall('localStorage', THEME) || (system.matches ? 'dark' : 'light')) === 'dark';
  const paint = () => document.body.classList.toggle('dark', dark());

  paint();
  // gradio sets the class itself when it starts and when the system's preference changes
  new MutationObserver(() => { if (document.body.classList.contains('dark') !== dark()) paint(); })
    .observe(document.body, { attributes: true, attributeFilter: ['class'] });
  system.addEventListener('change', paint);

  const swapColours = () => {
    chosen = dark() ? 'light' : 'dark';
    remember('localStorage', THEME, chosen);
    paint();
  };

  const copy = async (button) => {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // no clipboard on plain http from another machine
      const place = button.closest('dialog') ?? document.body;  // the rest of the page is inert beside a dialog
      const area = place.appendChild(Object.assign(document.createElement('textarea'), { value: text }));
      area.select();
      document.execCommand('copy');
      area.remove();
    }
    button.classList.add('is-done');
    setTimeout(() => button.classList.remove('is-done'), 1200);
  };

  const openTab = (name) => document.getElementById(`tab-${name}-button`)?.click();

  // On a narrow screen what a form button brings appears below the fold.
  const follow = (id, block = 'start') => {
    if (innerWidth > 900 && block === 'start') return;
    setTimeout(() => document.getElementById(id)?.scrollIntoView({ behavior: 'smooth', block }), 200);
  };

  // Writes into the message box as a person would.
  const write = (text) => {
    const box = document.querySelector('#chat-input textarea');
    box.value = text;
    box.dispatchEvent(new Event('input', { bubbles: true }));
  };
  const say = (text) => {
    write(text);
    setTimeout(() => document.getElementById('send-btn')?.click());  // once gradio has taken the text over
  };

  const pick = (button) => {
    window.millm.pick(button.dataset.pick);
    follow('preview-card', innerWidth > 900 ? 'nearest' : 'start');
  };

  const act = async (button) => {
    const { act: action, model, question, body, ok, also, alsoAct } = button.dataset;
    const danger = button.classList.contains('is-danger');
    const answer = question ? await window.millm.ask({ title: question, body, ok, also, danger }) : 'ok';
    if (!answer) return;
    button.setAttribute('aria-busy', 'true');
    setTimeout(() => button.removeAttribute('aria-busy'), PATIENCE_MS); // nobody may answer any more
    window.millm.act(answer === 'also' ? alsoAct : action, Number(model));
  };

  // Filled in by their blocks: ask({title, body, ok, also, danger}) -> Promise of "ok", "also" or "",
  // act(action, model) by the dialog, pick(key) by the catalogue.
  window.millm = { write };

  // gradio builds the tab that it opens with, and the others when they are opened.
  const open = recall('sessionStorage', TAB) ?? recall('localStorage', TAB);
  const nav = window.gradio_config.components.find(({ props }) => props.elem_id === 'nav');
  const tabs = window.gradio_config.components.filter(({ type }) => type === 'tabitem');
  if (tabs.some(({ props }) => props.id === open)) nav.props.selected = open;

  document.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.act && !button.ariaBusy) act(button);
    if (button.dataset.pick) pick(button);
    if (button.dataset.tab) openTab(button.dataset.tab);
    if (button.dataset.copy) copy(button);
    if (button.dataset.press) document.getElementById(button.dataset.press)?.click();
    if (button.dataset.say) say(button.dataset.say);
    if (button.id === 'theme-btn') swapColours();
    if (button.id === 'preview-btn') follow('preview-card');
    if (button.id === 'download-btn') follow('download-ending');
    const tab = /^tab-(\w+)-button$/.exec(button.id);
    if (tab) ['sessionStorage', 'localStorage'].forEach((storage) => remember(storage, TAB, tab[1]));
  });
})();
