// The controls beside the conversation: they follow the defaults of the loaded model until a person changes them.
// The defaults come with the notice of an empty conversation, which is drawn afresh with every change of model.
(() => {
  const byId = (id) => document.getElementById(id);
  const told = () => document.querySelector('.mi-chats').dataset;  // what the page says once
  let base = null;  // {model, values}: what the controls started from

  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  const first = () => ({ model: '', values: JSON.parse(told().first) });
  const names = () => JSON.parse(told().names);
  const read = (notice) => {
    const found = new DOMParser().parseFromString(notice || '', 'text/html').querySelector('[data-defaults]');
    return found ? JSON.parse(found.dataset.defaults) : null;
  };
  const listed = (words) => (words.length < 2 ? words.join('')
    : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`);

  // What a conversation starts with: the model's defaults, and over them what was changed in it before.
  const begin = (chat, notice) => {
    const fresh = read(notice);
    base = (fresh?.model ? fresh : base) ?? first();
    const own = chat?.controls ?? [];
    return base.values.map((value, place) =>
      (own.length === base.values.length && !same(own[place], chat.base?.[place]) ? own[place] : value));
  };

  // The listener of the notice: another model's defaults take the place of those that nobody changed.
  const follow = (notice, ...values) => {
    const fresh = read(notice);
    if (!base || !fresh?.model || same(fresh, base)) return [];
    const another = fresh.model !== base.model;
    const changed = values.map((value, place) => !same(value, base.values[place]));
    base = fresh;
    const shown = values.map((value, place) => (changed[place] ? value : fresh.values[place]));
    mark(shown, another);
    return shown.map((value, place) => (same(value, values[place]) ? undefined : value));
  };

  // Says what is not the model's default. loaded: a model came that would have it otherwise.
  const mark = (values, loaded = false) => {
    requestAnimationFrame(window.millm.presets.settle);
    if (!base || !byId('changed-note')) return;
    const changed = names().filter((_, place) => !same(values[place], base.values[place]));
    const kept = loaded ? ` Kept when ${base.model} was loaded.` : '';
    const plain = base.model ? `These are the defaults of ${base.model}.` : 'These are miLLM\'s defaults.';
    const said = changed.length ? `You changed ${listed(changed)}.${kept}` : plain;
    if (loaded || !byId('changed-note').textContent.startsWith(said)) byId('changed-note').textContent = said;
    byId('reset-btn').hidden = !changed.length;
  };

  const defaults = () => base.values;
  const system = () => base?.values[0] ?? '';
  const start = () => ({ model: base?.model ?? '', base: base?.values ?? [] });
  document.addEventListener('click', (event) => {
    if (event.target.closest('#reset-btn')) window.millm.sampling.reset();
  });

  // reset() is filled in by its block
  window.millm.sampling = { begin, follow, mark, defaults, system, start, fields: names, reset: () => {} };
})();
