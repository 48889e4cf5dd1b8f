// The tokens under an answer: a click, or Enter, opens one; arrow keys move. The whole group is one stop for Tab.
(() => {
  const LESS = 0.0005;
  const percent = (chance) => (chance < LESS ? '<0.1%' : `${(100 * chance).toFixed(1)}%`);
  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };

  const row = (text, chance, kind) => {
    const bar = make('div', { className: 'mi-bar' }, make('span'));
    bar.firstChild.style.width = `${100 * chance}%`;
    bar.setAttribute('aria-hidden', 'true');
    const name = make('th', { scope: 'row' }, make('code', {}, text));
    if (kind) name.append(make('small', {}, kind));
    return make('tr', {}, name, make('td', {}, bar), make('td', {}, percent(chance)));
  };

  const table = (text, [chance, ...others]) => {
    const rows = [[text, chance, 'chosen']];
    for (let at = 0; at < others.length; at += 2) rows.push([others[at], others[at + 1], '']);
    const rest = 1 - rows.reduce((sum, [, each]) => sum + each, 0);
    rows.sort((a, b) => b[1] - a[1]);
    const body = make('tbody', {}, ...rows.map((each) => row(...each)));
    if (rest >= LESS) {
      const last = row('', rest, '');
      last.firstChild.replaceChildren('all others');
      body.append(last);
    }
    return make('table', {}, make('caption', { className: 'mi-hidden' }, 'How likely each token was here'), body);
  };

  const open = (token) => {
    const text = token.parentElement;
    const tokens = [...text.querySelectorAll('button')];
    const place = tokens.indexOf(token);
    reach(token);
    text.querySelector('[aria-current]')?.removeAttribute('aria-current');
    token.setAttribute('aria-current', 'true');
    const told = JSON.parse(text.dataset.told)[place];
    const head = make('p', {}, make('code', {}, token.textContent), make('b', {}, percent(told[0])),
      make('span', {}, `token ${place + 1} of ${tokens.length}`));
    const note = make('small', {}, 'As the model found them, before temperature and the other settings.');
    text.parentElement.querySelector('.mi-token-told').replaceChildren(head, table(token.textContent, told), note);
  };

  const reach = (token) => {
    for (const each of token.parentElement.querySelectorAll('button:not([tabindex="-1"])')) each.tabIndex = -1;
    token.tabIndex = 0;
  };

  const switchOn = (button) => {
    const box = document.querySelector('#token-switch input');
    if (!box.checked) box.click();
    button.previousElementSibling.textContent = 'Switched on. The next answer comes with them.';
    button.remove();
    document.querySelector('#chat-input textarea')?.focus();
  };

  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('button');
    if (button?.closest('.mi-tokens-text')) open(button);
    if (button?.dataset.tokensOn !== undefined) switchOn(button);
  });

  document.addEventListener('keydown', (event) => {
    const token = event.target.closest?.('.mi-tokens-text button');
    if (!token || event.altKey || event.ctrlKey || event.metaKey) return;
    const tokens = [...token.parentElement.querySelectorAll('button')];
    const place = tokens.indexOf(token);
    const goal = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    const next = tokens[Math.max(0, Math.min(goal, tokens.length - 1))];
    reach(next);
    next.focus();
  });
})();
