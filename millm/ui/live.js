// What has changed since what the page shows; the page asks every second, after a button, and for other filters. The
// answer says in the order of gradio's outputs which of their properties are new.
(() => {
  let asked = 0;
  let drawn = 0;
  let waiting = 0;

  const ask = async (search, status, modelType, sort, stamp, more = {}) => {
    const mine = ++asked;
    const query = new URLSearchParams({ search: search ?? '', status, model_type: modelType, sort, stamp, ...more });
    const answer = await fetch(`page/live?${query}`);
    if (answer.status === 401) location.reload();  // the key is another one now: the page lets nobody in without it
    if (!answer.ok) return [];
    const changed = await answer.json();
    if (mine < drawn) return [];  // a later question was answered earlier
    drawn = mine;
    return changed.map((props) => props ? { __type__: 'update', ...props } : undefined);
  };
  const changes = async (...told) => {
    waiting += 1;
    return ask(...told).finally(() => { waiting -= 1; });
  };

  Object.assign(window.millm, {
    changes,
    tick: (...told) => waiting ? [] : changes(...told),
    filtered: (...told) => changes(...told, { filtered: 'yes' }),
  });
})();
