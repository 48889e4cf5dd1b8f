// The half of the Playground that was open is open again after a reload, with the prompt that was written into it.
(() => {
  const MODE = 'millm-playground';
  const PROMPT = 'millm-compare-prompt';
  const WAITS = 100;  // of 100 ms: gradio builds a tab when it is first opened

  const calm = matchMedia('(prefers-reduced-motion: reduce)');

  // A click before gradio listens is lost, so it is repeated until the half is there.
  const restore = (waits = WAITS) => {
    if (sessionStorage.getItem(MODE) !== 'Compare') return;
    const choice = document.querySelector('#playground-mode input[value=Compare]');
    if (document.getElementById('compare-form')?.checkVisibility()) {
      write();
    } else if (choice) {
      choice.checked = false;
      choice.click();
    }
    if (waits) setTimeout(() => restore(waits - 1), 100);
  };

  const box = () => document.querySelector('#compare-prompt textarea');
  // What was not sent goes before the prompt of the last comparison, which the server fills in a moment later.
  const write = () => {
    const kept = sessionStorage.getItem(PROMPT);
    if (!kept || box().value === kept) return;
    box().value = kept;
    box().dispatchEvent(new Event('input', { bubbles: true }));
  };

  const follow = () => setTimeout(() => document.getElementById('compare-run')
    ?.scrollIntoView({ behavior: calm.matches ? 'auto' : 'smooth', block: 'start' }), 200);

  document.addEventListener('change', (event) => {
    if (!event.target.closest('#playground-mode')) return;
    sessionStorage.setItem(MODE, event.target.value);
    setTimeout(restore, 100);
  });
  document.addEventListener('input', (event) => {
    if (event.target === box()) sessionStorage.setItem(PROMPT, event.target.value);
  });
  document.addEventListener('click', (event) => {
    if (event.target.closest?.('#tab-playground-button')) restore();
    if (!event.target.closest?.('#compare-start')) return;
    sessionStorage.removeItem(PROMPT);
    follow();
  });
  restore();  // the Playground may be what the page opens with
})();
