// The form of the Download tab while it is filled in: what is wrong is said under its field, what looks complete is
// previewed after a pause, and the memory table follows the slider. What counts is decided on the server.
(() => {
  const LOOK_MS = 600;
  const WEIGH_MS = 400;
  const PLACES = { huggingface: 'repo-input', local: 'path-input', url: 'url-input', ollama: 'ollama-input',
    remote: 'remote-input' };
  const WATCHED = [...Object.values(PLACES), 'token-input', 'revision-input', 'checksum-input', 'remote-model',
    'remote-key'];
  const whole = (pattern) => new RegExp(`^(?:${pattern})$`);
  const part = '[A-Za-z0-9_][A-Za-z0-9._-]*';
  const REPO = whole('[A-Za-z0-9_-][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+');
  const HUB = whole('(?:https?://[^/?#\\s]+|(?:www\\.)?huggingface\\.co|hf\\.co)/[^/?#\\s]+/[^/?#\\s]+(?:[/?#].*)?');
  const NAME = whole('(?!\\.{1,2}$)[A-Za-z0-9_.-]{1,255}');
  const CHECKSUM = whole('sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}');
  const OLLAMA = whole(`(?:${part}(?::[0-9]+)?/)?(?:${part}/)*${part}(?::${part})?`);
  const RULES = {
    'repo-input': [(text) => (REPO.test(text) && !text.includes('..')) || HUB.test(text),
      'Write it as owner/name, or paste the address of its page.'],
    'path-input': [(text) => /^(\/|[A-Za-z]:[\\/])./.test(text), 'Write the whole path, from the root on: /home/me/models/my-model.'],
    'url-input': [(text) => /^https?:\/\/[^/\s]+\/\S+$/.test(text), 'An address starts with https:// or http:// and names a file.'],
    'ollama-input': [(text) => OLLAMA.test(text) && text.length <= 200, 'Write it as Ollama does: name or name:tag.'],
    'remote-input': [(text) => /^https?:\/\/[^/\s@?#]+(\/[^\s@?#]*)?$/i.test(text),
      'Write the address as http://gpu-box:8000/v1. A key goes into its own field.'],
    'name-input': [(text) => NAME.test(text), 'Letters, digits, "-", "_" and "." only.'],
    'checksum-input': [(text) => CHECKSUM.test(text.toLowerCase()), 'Write sha256: and 64, or md5: and 32 hexadecimal digits.'],
  };

  const input = (id) => document.querySelector(`#${id} :is(input:not([type=checkbox]), textarea)`);
  const value = (id) => input(id)?.value.trim() ?? '';
  const source = () => document.querySelector('#source-select input:checked')?.value ?? 'huggingface';

  // a sentence under a field; "" takes it away. sure: false says it as a remark, since the text may be unfinished
  const say = (id, sentence, sure = true) => {
    const field = input(id);
    let note = document.getElementById(`${id}-note`);
    if (!field || (!sentence && !note)) return;
    if (!note) {
      note = Object.assign(document.createElement('p'), { id: `${id}-note`, className: 'mi-field-note' });
      document.getElementById(id).append(note);
      field.setAttribute('aria-describedby', note.id);
    }
    note.textContent = sentence;
    note.setAttribute('role', sure ? 'alert' : 'status');
    note.classList.toggle('is-remark', !sure);
    if (sentence && sure) field.setAttribute('aria-invalid', 'true');
    else field.removeAttribute('aria-invalid');
  };

  const problem = (id) => {
    const text = value(id);
    const [fits, sentence] = RULES[id] ?? [() => true];
    return !text || fits(text) ? '' : sentence;
  };

  const checkTaken = async (text) => {
    const answer = await fetch(`api/models?q=${encodeURIComponent(text)}`).catch(() => null);
    const body = answer?.ok ? await answer.json().catch(() => null) : null;
    if (value('name-input') === text && body?.data?.some(({ name }) => name === text)) {
      say('name-input', `A model is called ${text} already. Choose another name.`);
    }
  };

  // previews of what is typed
  let looking, looked = '';
  let sliding = false, weighing, resting;  // of the slider: being moved, a timer, the step that is being counted
  const complete = () => {
    const id = PLACES[source()];
    return value(id) && !problem(id) ? id : '';
  };
  const wanted = () => JSON.stringify(
    [source(), ...WATCHED.map(value), Boolean(document.querySelector('#trust-checkbox input')?.checked)]);
  const look = () => {
    if (!complete() || problem('checksum-input') || wanted() === looked) return;
    looked = wanted();
    resting = undefined;
    window.millm.look?.();
  };
  const lookSoon = () => {
    clearTimeout(looking);
    looking = setTimeout(look, LOOK_MS);
  };

  const typed = (event) => {
    const id = event.target.closest?.('.mi-panel .block[id]')?.id;
    if (!id || !document.getElementById('preview-card')) return;
    if (id in RULES && !problem(id)) say(id, '');
    if (['token-input', 'revision-input', 'remote-model', 'remote-key'].includes(id)) say(id, '');
    if (WATCHED.includes(id)) lookSoon();
  };
  document.addEventListener('input', typed);
  document.addEventListener('change', (event) => {
    if (event.target.matches('#source-select input, #trust-checkbox input')) lookSoon();
  });
  document.addEventListener('focusout', (event) => {
    const id = event.target.closest?.('.block[id]')?.id;
    if (!(id in RULES)) return;
    const sentence = problem(id);
    if (sentence) say(id, sentence);
    else if (id === 'name-input' && value(id)) checkTaken(value(id));
  });

  // Download explains itself instead of asking for what cannot be
  document.addEventListener('click', (event) => {
    const button = event.target.closest('#download-btn, #preview-btn');
    if (!button) return;
    clearTimeout(looking);
    looked = wanted();
    resting = undefined;
    if (button.id !== 'download-btn') return;
    const place = PLACES[source()];
    const wrong = [place, 'name-input', 'checksum-input'].filter((id) => input(id) && problem(id));
    wrong.forEach((id) => say(id, problem(id)));
    if (!value(place)) {
      say(place, 'Say which model first.');
      wrong.unshift(place);
    }
    if (input('name-input')?.getAttribute('aria-invalid')) wrong.push('name-input');
    if (!wrong.length) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    input(wrong[0]).focus();
  }, true);
  document.addEventListener('click', (event) => {
    const opened = { 'token-way': 'token-input', 'trust-way': 'trust-checkbox' }[event.target.closest('button')?.id];
    if (opened) setTimeout(() => document.querySelector(`#${opened} input`)?.focus(), 200);
  });

  // an answer of the server, drawn into the card or the ending
  let open = false;
  document.addEventListener('toggle', (event) => {
    if (event.target.matches?.('.mi-parts')) open = event.target.open;
  }, true);
  window.millm.answered = (card) => {
    const told = card.querySelector('[data-field]');
    if (wanted() === looked) WATCHED.filter((id) => id !== told?.dataset.field && !problem(id)).forEach((id) => say(id, ''));
    if (told && wanted() === looked) say(told.dataset.field, told.dataset.problem, Boolean(told.dataset.sure));
    const parts = card.querySelector('.mi-parts');
    if (parts) parts.open = open;
    const slider = card.querySelector('#context-slider');
    if (!slider) return;
    const { counted } = slider.closest('[data-steps]').dataset;
    if (sliding || (resting === slider.value && resting !== counted)) move(slider);  // it went on meanwhile
    else slider.value = counted;
  };

  // the slider: at once what can be worked out, then what was counted
  const set = (element, text) => { if (element && element.textContent !== text) element.textContent = text; };
  const move = (slider) => {
    const box = slider.closest('[data-steps]');
    const card = slider.closest('.mi-preview');
    const step = JSON.parse(box.dataset.steps)[slider.value];
    const about = slider.value === box.dataset.counted ? '' : '≈ ';
    card.querySelectorAll('[data-context]').forEach((place) => set(place, step.said));
    slider.setAttribute('aria-valuetext', step.aloud);
    const [fit, said, why] = step.verdict;
    const verdict = card.querySelector('.mi-fit');
    verdict.className = `mi-fit is-${fit}`;
    set(verdict.querySelector('b'), said);
    set(verdict.querySelector('p'), why);
    card.querySelectorAll('.mi-cost').forEach((row, index) => {
      const [size, percent, kind, word] = step.rows[index];
      row.className = `mi-cost is-${kind}`;
      set(row.querySelector('.mi-cost-size'), about + size);
      set(row.querySelector('.mi-cost-fit').lastChild, word);
      const bar = row.querySelector('.mi-bar');
      bar.setAttribute('aria-valuenow', percent);
      bar.firstElementChild.style.width = `${percent}%`;
    });
    card.querySelectorAll('.mi-parts td').forEach((cell, index) => { if (index) set(cell, step.parts[index - 1]); });
  };
  document.addEventListener('input', (event) => {
    if (event.target.id !== 'context-slider') return;
    const slider = event.target;
    sliding = true;
    move(slider);
    clearTimeout(weighing);
    weighing = setTimeout(() => {
      sliding = false;
      const { steps, counted } = slider.closest('[data-steps]').dataset;
      if (slider.value === counted) return;
      resting = slider.value;
      window.millm.weigh(JSON.parse(steps)[resting].tokens);
    }, WEIGH_MS);
  });
})();
