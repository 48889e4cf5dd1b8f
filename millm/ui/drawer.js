// The sheet at the side: opened by buttons, filled by the server, closed by Escape, its button or a click beside it.
// Runs once, when its block is there; `element` and `server` come from gradio.
const sheet = element.querySelector('dialog');
const part = (name) => sheet.querySelector('#drawer-' + name);
const slowly = (work, ms) => { let timer; return () => { clearTimeout(timer); timer = setTimeout(work, ms); }; };
let shown = null;  // {kind, model}: what the sheet shows
let drawn = '';
let asked = 0;

const SILENT = 'miLLM does not answer. Is it still running?';
const silence = { kind: '', title: 'miLLM', badge: '', body: `<p class="mi-note">${SILENT}</p>`, foot: '' };
const draw = (what) => server.draw_sheet(what).catch(() => silence);

const form = () => sheet.querySelector('#settings-form');
const fields = () => Object.fromEntries(new FormData(form()));
const changed = (input) => input.value.trim() !== input.defaultValue.trim();
const dirty = () => shown?.kind === 'settings' && form() && [...form().elements].some((input) => input.name && changed(input));

const weigh = async () => {
  const place = sheet.querySelector('[data-room]');
  if (!place) return;
  const question = ++asked;
  const input = sheet.querySelector('#set-context_length');
  const context = input ? input.value.trim() || 'own' : '';
  place.setAttribute('aria-busy', 'true');
  const html = await server.draw_room({ model: Number(place.dataset.room), context }).catch(() => '');
  if (question !== asked || !place.isConnected) return;
  place.innerHTML = html;  // escaped where it was made
  place.removeAttribute('aria-busy');
};

// What is open and where the focus is stays over a redraw.
const fill = (now) => {
  const at = document.activeElement?.id;
  const open = [...sheet.querySelectorAll('details[open]')].map((each) => each.id);
  const room = sheet.querySelector('[data-room]')?.innerHTML ?? '';
  part('kind').textContent = now.kind;
  part('title').innerHTML = now.title;
  part('badge').innerHTML = now.badge;
  part('body').innerHTML = now.body;
  part('foot').innerHTML = now.foot;
  if (drawn) {
    sheet.querySelectorAll('details[id]').forEach((each) => { each.open = open.includes(each.id); });
    const place = sheet.querySelector('[data-room]');
    if (place) place.innerHTML = room;
    if (at && sheet.open) sheet.querySelector('#' + CSS.escape(at))?.focus();
  }
  drawn = JSON.stringify(now);
};

const show = async (kind, model) => {
  if (sheet.open && dirty() && !await discard()) return;
  const mine = shown = { kind, model };
  const now = await draw(mine);
  if (mine !== shown) return;
  drawn = '';
  fill(now);
  if (!sheet.open) sheet.showModal();
  part('body').scrollTop = 0;
  part('title').focus();
  weigh();
};

// Details follow what happens to the model; a form that is being filled in does not.
const follow = slowly(async () => {
  const mine = shown;
  if (!sheet.open || mine?.kind !== 'details') return;
  const now = await draw(mine);
  if (mine !== shown || JSON.stringify(now) === drawn) return;
  fill(now);
  weigh();
}, 250);
new MutationObserver((changes) => {
  if (sheet.open && changes.some((change) => !sheet.contains(change.target))) follow();
}).observe(document.querySelector('.gradio-container') ?? document.body, { childList: true, subtree: true, characterData: true });

const discard = () => window.millm.ask({
  title: 'Discard your changes?', body: 'They are not saved yet.', ok: 'Discard', danger: true,
});
const leave = () => {
  shown = null;
  sheet.close();
};
const close = async () => {
  if (!dirty() || await discard()) leave();
};

const say = (faults) => {
  sheet.querySelectorAll('.mi-fault').forEach((each) => { each.textContent = ''; });
  sheet.querySelectorAll('[aria-invalid]').forEach((each) => { each.removeAttribute('aria-invalid'); });
  const whole = sheet.querySelector('#settings-fault');
  whole.textContent = faults[''] ?? '';
  whole.hidden = !faults[''];
  for (const [name, sentence] of Object.entries(faults)) {
    const input = name && form().elements[name];
    if (!input) continue;
    input.setAttribute('aria-invalid', 'true');
    sheet.querySelector('#set-' + name + '-fault').textContent = sentence;
  }
  sheet.querySelector('[aria-invalid], #settings-fault:not([hidden])')?.scrollIntoView({ block: 'center' });
  sheet.querySelector('[aria-invalid]')?.focus();
};

const save = async (reload) => {
  const { model } = shown;
  const buttons = part('foot').querySelectorAll('button');
  buttons.forEach((button) => { button.disabled = true; });
  const { faults } = await server.save_settings({ model, fields: fields(), reload })
    .catch(() => ({ faults: { '': SILENT } }));
  buttons.forEach((button) => { button.disabled = false; });
  if (shown?.model !== model) return;
  say(faults);
  if (Object.keys(faults).length) return;
  leave();
  window.millm.act('saved', model);
};

const mark = () => {
  const later = [...form().elements].some((input) => input.dataset.later !== undefined && changed(input));
  for (const id of ['settings-later', 'settings-reload-btn']) {
    const each = sheet.querySelector('#' + id);
    if (each) each.hidden = !later;
  }
};
const weighSlowly = slowly(weigh, 400);

const fillIn = (button) => {
  for (const input of form().elements) {
    const advised = button.getAttribute('data-' + input.name.replaceAll('_', '-'));
    if (input.name && advised !== null) input.value = advised;
  }
};

sheet.addEventListener('input', (event) => {
  if (!form()) return;
  mark();
  if (event.target.name === 'context_length') weighSlowly();
});
sheet.addEventListener('submit', (event) => { event.preventDefault(); save(false); });
sheet.addEventListener('close', () => { shown = null; });
sheet.addEventListener('cancel', (event) => { event.preventDefault(); close(); });
sheet.addEventListener('click', (event) => {
  if (event.target === sheet) close();
  const button = event.target.closest('button');
  if (!button) return;
  if (button.id === 'drawer-close-btn') close();
  if (button.id === 'settings-save-btn') save(false);
  if (button.id === 'settings-reload-btn') save(true);
  if (button.dataset.fill !== undefined) fillIn(button);
  if (button.dataset.act) leave();  // toasts and questions belong to the page behind
});
document.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-drawer]');
  if (button) show(button.dataset.drawer, Number(button.dataset.model));
});
