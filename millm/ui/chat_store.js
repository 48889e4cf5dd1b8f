// Conversations in this browser: one entry of localStorage each, so that no page writes over what another one keeps.
// Whatever localStorage refuses comes back as a sentence; nothing here throws.
(() => {
  const PREFIX = 'millm-chat-';
  const PROBE = 'millm-probe';
  const FULL = 'This browser has no room left for conversations. What is new here is not kept: '
    + 'export or delete older ones.';
  const OFF = 'This browser keeps nothing for miLLM, so conversations are gone when this page is.';

  const random = () => Math.random().toString(36).slice(2, 10);
  const reason = (error) => (/quota/i.test(error?.name) ? FULL : OFF);
  const valid = (chat) => typeof chat?.title === 'string' && Array.isArray(chat.messages);

  // The conversation kept under a name; null where there is none that can be read.
  const read = (id) => {
    try {
      const chat = JSON.parse(localStorage.getItem(PREFIX + id));
      return valid(chat) ? { ...chat, id } : null;
    } catch {
      return null;
    }
  };

  // All that can be read, newest first, and how many cannot.
  const all = () => {
    let ids = [];
    try {
      ids = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)).map((key) => key.slice(PREFIX.length));
    } catch { /* storage is off: `problem` says so */ }
    const chats = ids.map(read).filter(Boolean).sort((one, other) => other.updated - one.updated);
    return { chats, broken: ids.length - chats.length };
  };

  // Keeps a conversation. `rev` is the state in which this page last saw it: where another page went on with it
  // since, both stay and this one becomes a copy.
  const write = (chat) => {
    const there = read(chat.id);
    const forked = Boolean(there) && there.rev !== chat.rev;
    const kept = { ...chat, rev: random(), updated: chat.updated ?? Date.now() };
    if (forked) Object.assign(kept, { id: newId(), title: `${chat.title} (copy)`, named: true });
    try {
      localStorage.setItem(PREFIX + kept.id, JSON.stringify(kept));
      return { chat: kept, forked, problem: '' };
    } catch (error) {
      return { chat, forked: false, problem: reason(error) };
    }
  };

  // Returns what stood in the way.
  const remove = (id) => {
    try {
      localStorage.removeItem(PREFIX + id);
      return '';
    } catch (error) {
      return reason(error);
    }
  };

  // What is wrong with this browser's storage; '' where nothing is.
  const problem = () => {
    try {
      localStorage.setItem(PROBE, '1');
      localStorage.getItem(PROBE);
      localStorage.removeItem(PROBE);
      return '';
    } catch (error) {
      return reason(error);
    }
  };

  const newId = () => Date.now().toString(36) + random();
  // Of a key that changed in another page: which conversation it holds; null for other keys.
  const idOf = (key) => (key?.startsWith(PREFIX) ? key.slice(PREFIX.length) : null);

  window.millm.store = { all, read, write, remove, problem, newId, idOf };
})();
