// Repositories of the hub that match what is being typed, in a list below the field: a combobox as WAI-ARIA
// describes it. Silent where the hub does not answer; Preview says why.
(() => {
  const PAUSE_MS = 250;
  const SHORTEST = 3;
  let field, list, timer, asked = 0, chosen = -1;

  const rows = () => [...(list?.children ?? [])];
  const mark = (place) => {
    const options = rows();
    chosen = options.length ? (place + options.length) % options.length : -1;
    options.forEach((option, index) => option.setAttribute('aria-selected', index === chosen));
    options[chosen]?.scrollIntoView({ block: 'nearest' });
    if (chosen < 0) field.removeAttribute('aria-activedescendant');
    else field.setAttribute('aria-activedescendant', options[chosen].id);
  };

  const close = () => {
    clearTimeout(timer);
    asked += 1;  // what is still on its way comes too late
    chosen = -1;
    list?.parentElement?.remove();
    list = undefined;
    field?.setAttribute('aria-expanded', 'false');
    field?.removeAttribute('aria-activedescendant');
  };

  const take = (option) => {
    const into = field;
    close();
    into.value = option.dataset.repo;
    into.dispatchEvent(new Event('input', { bubbles: true }));
    close();  // the list that this event would bring
  };

  const text = (tag, name, content) => Object.assign(document.createElement(tag), { className: name, textContent: content });
  const row = ({ repo_id: repo, downloads, gated }, index) => {
    const option = Object.assign(text('li', '', ''), { id: `repo-match-${index}` });
    option.setAttribute('role', 'option');
    option.setAttribute('aria-selected', 'false');
    option.dataset.repo = repo;
    option.append(text('b', '', repo), text('span', '', `${downloads.toLocaleString()} downloads`));
    if (gated) option.append(text('span', 'mi-tag', 'Gated'));
    return option;
  };

  const show = (found) => {
    list?.parentElement?.remove();
    const box = text('div', 'mi-matches', '');
    list = Object.assign(text('ul', '', ''), { id: 'repo-matches' });
    list.setAttribute('role', 'listbox');
    list.setAttribute('aria-label', 'Matching repositories');
    list.append(...found.map(row));
    const count = text('p', 'mi-hidden', '');
    count.setAttribute('role', 'status');
    box.append(list, count);
    document.getElementById('repo-input').append(box);
    count.textContent = `${found.length} suggestions, use the arrow keys`;
    field.setAttribute('aria-controls', list.id);
    field.setAttribute('aria-expanded', 'true');
    chosen = -1;
  };

  const offer = async (typed) => {
    const turn = asked += 1;
    const answer = await fetch(`api/hub/search?q=${encodeURIComponent(typed)}`).catch(() => null);
    const body = answer?.ok ? await answer.json().catch(() => null) : null;
    if (turn !== asked || document.activeElement !== field) return;
    const found = (body?.data ?? []).filter(({ repo_id: repo }) => repo !== typed);
    if (found.length) show(found);
    else close();
  };

  const ours = (event) => (event.target.closest?.('#repo-input') && event.target.matches('input, textarea'));

  document.addEventListener('input', (event) => {
    if (!ours(event)) return;
    field = event.target;
    for (const [name, value] of [['role', 'combobox'], ['aria-autocomplete', 'list'], ['aria-haspopup', 'listbox']]) {
      field.setAttribute(name, value);
    }
    if (!list) field.setAttribute('aria-expanded', 'false');
    clearTimeout(timer);
    const typed = field.value.trim();
    if (typed.length < SHORTEST || typed.includes('://')) close();
    else timer = setTimeout(() => offer(typed), PAUSE_MS);
  });

  // before gradio, for which Enter in the field means Preview
  document.addEventListener('keydown', (event) => {
    if (!ours(event)) return;
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (way && list) mark(chosen < 0 && way < 0 ? -1 : chosen + way);
    else if (event.key === 'Enter' && chosen >= 0) take(rows()[chosen]);
    else if (event.key === 'Escape' && list) close();
    else {
      if (event.key === 'Enter' || event.key === 'Tab') close();
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }, true);

  document.addEventListener('pointerdown', (event) => {
    if (event.target.closest('.mi-matches')) event.preventDefault();  // the field keeps the focus
    else if (!ours(event)) close();
  });
  document.addEventListener('click', (event) => {
    const option = event.target.closest('#repo-matches [role=option]');
    if (option) take(option);
  });
  document.addEventListener('focusout', (event) => { if (ours(event)) close(); });
})();
