// The conversation on the page: kept while it grows, changed for another one, listed in the drawer.
// gradio holds what is shown; its listeners hand it over here: seen(), told(), ended(), and shown(), which sets it.
(() => {
  const AT = 'millm-chat';  // in sessionStorage: which conversation this page shows
  const UNTITLED = 'New conversation';
  const WRITE_MS = 2000;  // between two writes while an answer grows
  const FORKED = 'Another page went on with this conversation. What is written here is kept as a copy.';
  const { store, sampling, messages } = window.millm;
  const byId = (id) => document.getElementById(id);

  let now = null;  // the conversation shown: {id, rev, title, named, created, model}
  let latest = null;  // what gradio holds: [messages, ...controls]
  let kept = '';  // what was written last, to know what is new
  let timer = 0;
  let taken = '';  // the mark of the message that was taken last
  let next = null;  // what to do when the answer being written has ended
  let opening = null;
  let trigger = () => {};

  const head = ({ id, rev, title, named, created, model }) => ({ id, rev, title, named, created, model });
  const fresh = () => ({ id: store.newId(), rev: null, title: UNTITLED, named: false, created: Date.now(), model: '' });
  const contents = (...parts) => JSON.stringify(parts);

  let troubled = false;  // whether the sentence above is about this browser's storage
  const say = (sentence, trouble = Boolean(sentence)) => {
    const note = byId('chats-note');
    if (!note) return;
    troubled = trouble;
    note.querySelector('span').textContent = sentence;
    note.hidden = !sentence;
  };
  const remember = () => {
    try {
      sessionStorage.setItem(AT, now.id);
    } catch { /* then a reload shows the newest one */ }
  };

  const write = () => {
    clearTimeout(timer);
    timer = 0;
    if (!now || !latest || !(latest[0].length || now.rev)) return;
    const [said, controls] = [messages.slim(latest[0]), latest.slice(1)];
    if (!now.named) now.title = messages.titleOf(said) || UNTITLED;
    const json = contents(now.title, said, controls);
    if (json === kept) return;
    const { model, base } = sampling.start();
    const { chat, forked, problem } = store.write({ ...now, model: model || now.model, messages: said, controls, base });
    if (!problem) {
      now = head(chat);
      kept = forked ? contents(chat.title, said, controls) : json;
      remember();
    }
    if (problem || troubled) say(problem);
    if (forked) say(FORKED, false);
    draw();
  };

  // A question is kept at once, an answer every two seconds while it grows, and at its end.
  const seen = (log, ...controls) => {
    if (!now || !latest) return;
    const asked = contents(messages.questions(log ?? [])) !== contents(messages.questions(latest[0]));
    latest = [log ?? [], ...controls];
    requestAnimationFrame(() => messages.tidy(latest?.[0] ?? []));
    sampling.mark(controls);
    if (asked) write();
    else timer ||= setTimeout(write, WRITE_MS);
  };
  const ended = (log, ...controls) => {
    latest = [log ?? [], ...controls];
    write();
    const go = next;
    next = null;
    go?.();
  };
  addEventListener('pagehide', write);

  // The message box is emptied once the server took its text: one that it refused stays.
  const told = (stats) => {
    const [, mark] = /data-taken="(\d+)"/.exec(stats) ?? [];
    if (!mark || mark === taken) return;
    taken = mark;
    window.millm.write('');
  };

  // An answer that is being written stops first, and what is there of it stays.
  const leave = (go) => {
    const stop = byId('stop-btn');
    if (stop?.offsetParent) {
      next = go;
      stop.click();
    } else {
      write();
      go();
    }
  };

  const show = (chat) => {
    now = chat ? head(chat) : fresh();
    opening = chat;
    latest = null;
    if (!troubled) say('');
    clearTimeout(timer);
    timer = 0;
    remember();
    draw();
    trigger();
  };

  // The listener of "show": returns what gradio is to hold now. Thoughts that were cut off are thought out.
  const shown = (notice) => {
    const said = messages.slim(opening?.messages ?? []);
    for (const message of said.filter(({ metadata }) => metadata?.status === 'pending')) {
      message.metadata = { ...message.metadata, title: 'Thought', status: 'done' };
    }
    const controls = sampling.begin(opening, notice);
    latest = [said, ...controls];
    kept = contents(now.title, said, controls);
    opening = null;
    requestAnimationFrame(() => messages.tidy(latest?.[0] ?? []));
    sampling.mark(controls);
    return [said, messages.numbersOf(said.at(-1))?.outerHTML ?? '', '', ...controls];
  };

  const draw = () => {
    if (byId('chats-title') && now) byId('chats-title').textContent = now.title;
    if (byId('chats-drawer')?.open) drawList();
  };
  const drawList = () => {
    const { chats, broken } = store.all();
    byId('chats-list').replaceChildren(...chats.map(drawRow));
    const unread = broken ? ` ${broken} cannot be read.` : '';
    byId('chats-foot').textContent = chats.length || broken
      ? `Kept in this browser only.${unread}` : 'Nothing yet. What you ask is kept in this browser only.';
  };
  const drawRow = ({ id, title, updated, model }) => {
    const row = byId('chats-row').content.firstElementChild.cloneNode(true);
    row.dataset.id = id;
    row.querySelector('b').textContent = title;
    const when = new Date(updated).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
    row.querySelector('small').textContent = model ? `${when} · ${model}` : when;
    if (id === now?.id) row.querySelector('[data-chat=open]').setAttribute('aria-current', 'true');
    row.querySelectorAll('[title]').forEach((button) => button.setAttribute('aria-label', `${button.title}: ${title}`));
    return row;
  };

  // Asks for a name; resolves to "" where it was not given.
  const askName = ({ title, label, value }) => new Promise((resolve) => {
    const dialog = byId('name-dialog');
    const field = byId('name-field');
    byId('name-title').textContent = title;
    byId('name-label').textContent = label;
    field.value = value;
    dialog.returnValue = '';
    dialog.addEventListener('close', () => resolve(dialog.returnValue.trim()), { once: true });
    dialog.showModal();
    field.select();
  });
  document.addEventListener('keydown', (event) => {
    if (event.target.id !== 'name-field' || event.key !== 'Enter') return;
    event.preventDefault();  // else it presses the button that gets the focus back
    byId('name-dialog').close(event.target.value);
  });

  const rename = async (id) => {
    const chat = store.read(id);
    const title = chat && await askName({ title: 'Rename the conversation', label: 'Name', value: chat.title });
    if (!title) return;
    if (id === now.id) {
      Object.assign(now, { title, named: true });
      write();
    } else {
      say(store.write({ ...store.read(id) ?? chat, title, named: true }).problem);
    }
    draw();
  };

  const remove = async (id) => {
    const title = store.read(id)?.title ?? '';
    const body = 'It is gone from this browser for good. Export it first if you may want it again.';
    if (!await window.millm.ask({ title: `Delete “${title}”?`, body, ok: 'Delete conversation', danger: true })) return;
    const gone = () => {
      say(store.remove(id));
      if (id === now.id) show(null);
      draw();
      byId('chats-drawer').querySelector('[data-chat=new]').focus();
    };
    if (id === now.id) leave(gone);
    else gone();
  };

  const download = (id) => {
    if (id === now.id) write();
    const chat = store.read(id);
    if (!chat) return;
    const text = JSON.stringify(messages.exported(chat, sampling.fields()), null, 2);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
    link.download = `${chat.title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '') || 'conversation'}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const doing = {
    open: (id) => {
      byId('chats-drawer').close();
      if (id !== now.id) leave(() => show(store.read(id)));
    },
    new: () => {
      byId('chats-drawer').close();
      leave(() => { if (now.rev || latest?.[0].length) show(null); });
      document.querySelector('#chat-input textarea')?.focus();
    },
    rename,
    delete: remove,
    export: download,
  };

  const isOutside = ({ target, clientX: x, clientY: y }) => {  // a click on the backdrop is one on its dialog
    const { left, right, top, bottom } = target.getBoundingClientRect();
    return x < left || x > right || y < top || y > bottom;
  };
  document.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (button?.dataset.chat) doing[button.dataset.chat](button.closest('li')?.dataset.id);
    if (button?.id === 'chats-btn') {
      byId('chats-drawer').showModal();
      drawList();
    }
    if (button?.id === 'name-ok-btn') byId('name-dialog').close(byId('name-field').value);
    if (button?.id === 'name-cancel-btn') byId('name-dialog').close('');
    if (button?.id === 'code-btn') window.millm.showCode();
    if (button && 'close' in button.dataset) button.closest('dialog').close();
    if (event.target.matches('dialog.mi-chats-drawer, dialog.mi-code') && isOutside(event)) event.target.close();
  });

  // Another page changed what is kept: the same conversation shows the same here.
  addEventListener('storage', ({ key }) => {
    if (!now || (key !== null && store.idOf(key) === null)) return;
    if (store.idOf(key) === now.id && !byId('stop-btn')?.offsetParent) {
      const chat = store.read(now.id);
      if (chat ? chat.rev !== now.rev : now.rev) show(chat);
    }
    draw();
  });

  // The tab has been drawn, for the first time or again.
  const start = (show_) => {
    trigger = show_;
    if (now) {
      draw();
      return;
    }
    let at = null;
    try {
      at = sessionStorage.getItem(AT);
    } catch { /* as in a new page */ }
    const { chats } = store.all();
    const chat = at ? store.read(at) : chats[0] ?? null;
    show(chat);
    say(store.problem());
  };

  Object.assign(window.millm, { askName, chats: { start, seen, told, ended, shown } });
})();
