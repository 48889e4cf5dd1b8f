// What has changed since what the page shows; the page asks every second, after a button, and for other filters. The
// answer says in the order of gradio's outputs which of their properties are new.
(() => {
  const TYPING_MS = 100;  // without a key pressed, or each letter would be a question
  let asked = 0;
  let drawn = 0;
  let waiting = 0;
  let typed = 0;

  const ask = async (search, status, modelType, sort, stamp) => {
    const mine = ++asked;
    const query = new URLSearchParams({ search: search ?? '', status, model_type: modelType, sort, stamp });
    const answer = await fetch(`page/live?${query}`);
    if (answer.status === 401) location.reload();  // the key is another one now: the page lets nobody in without it
    if (!answer.ok) {
      console.error(`What has changed is not known: ${answer.status} ${await answer.text()}`);
      return [];
    }
    const changed = await answer.json();
    if (mine < drawn) return [];  // a later question was answered earlier
    drawn = mine;
    return changed.map((props) => props ? { __type__: 'update', ...props } : undefined);
  };
  const changes = async (...told) => {
    waiting += 1;
    return ask(...told).finally(() => { waiting -= 1; });
  };

  const filtered = async (...told) => {
    const mine = ++typed;
    await new Promise((done) => setTimeout(done, TYPING_MS));
    return mine === typed ? changes(...told) : [];
  };

  Object.assign(window.millm, {
    changes,
    tick: (...told) => waiting ? [] : changes(...told),
    filtered,
  });
})();
