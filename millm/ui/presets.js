// System prompts to choose from: those of the page, and the person's own, each an entry of localStorage.
(() => {
  const PREFIX = 'millm-preset-';
  const byId = (id) => document.getElementById(id);
  const box = () => document.querySelector('#system-prompt textarea');
  const choice = () => byId('preset-select');
  const own = () => choice().querySelector('optgroup:last-of-type');

  const say = (sentence) => {
    byId('presets-note').textContent = sentence;
    byId('presets-note').hidden = !sentence;
  };

  const kept = () => {
    try {
      return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)).sort()
        .map((key) => ({ name: key.slice(PREFIX.length), text: localStorage.getItem(key) }));
    } catch {
      return [];  // saving says so
    }
  };

  // Draws the person's own and chooses what stands in the box.
  const fill = () => {
    if (!choice()) return;
    const presets = kept();
    own().replaceChildren(...presets.map(({ name, text }) => new Option(name, text)));
    own().hidden = !presets.length;
    settle();
  };
  const settle = () => {
    if (!choice()) return;
    const text = box()?.value ?? '';
    const model = window.millm.sampling.system();
    const options = [...choice().options];
    const written = options.at(-1);
    const found = text === model ? options[0] : options.slice(1, -1).find(({ value }) => value === text);
    choice().selectedIndex = options.indexOf(found ?? written);
    byId('preset-delete-btn').hidden = found?.parentElement !== own();
  };

  const write = (text) => {
    box().value = text;
    box().dispatchEvent(new Event('input', { bubbles: true }));
    settle();
  };

  const change = (work) => {
    try {
      work();
      say('');
    } catch {
      say('This browser did not keep that: it has no room, or keeps nothing for miLLM.');
    }
    fill();
  };
  const save = async () => {
    const name = await window.millm.askName({ title: 'Save this system prompt', label: 'Name', value: '' });
    if (name) change(() => localStorage.setItem(PREFIX + name, box().value));
  };

  const remove = async () => {
    const name = choice().selectedOptions[0].text;
    const body = 'Its text stays in the box.';
    if (!await window.millm.ask({ title: `Delete the preset “${name}”?`, body, ok: 'Delete preset', danger: true })) return;
    change(() => localStorage.removeItem(PREFIX + name));
    choice().focus();
  };

  document.addEventListener('click', (event) => {
    if (event.target.closest('#preset-save-btn')) save();
    if (event.target.closest('#preset-delete-btn')) remove();
  });
  document.addEventListener('change', (event) => {
    if (event.target !== choice()) return;
    write(choice().selectedIndex === 0 ? window.millm.sampling.system() : choice().value);
  });
  document.addEventListener('input', (event) => {
    if (event.target === box()) settle();
  });
  addEventListener('storage', ({ key }) => { if (key === null || key.startsWith(PREFIX)) fill(); });

  window.millm.presets = { fill, settle };
})();
