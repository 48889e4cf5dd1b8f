// The half of the Playground that was open is open again after a reload.
(() => {
  const MODE = 'millm-playground';
  const WAITS = 100;  // of 100 ms: gradio builds a tab when it is first opened

  const calm = matchMedia('(prefers-reduced-motion: reduce)');

  // A click before gradio listens is lost, so it is repeated until the half is there.
  const restore = (waits = WAITS) => {
    if (sessionStorage.getItem(MODE) !== 'Compare') return;
    if (document.getElementById('compare-form')?.checkVisibility()) return;
    const choice = document.querySelector('#playground-mode input[value=Compare]');
    if (choice) {
      choice.checked = false;
      choice.click();
    }
    if (waits) setTimeout(() => restore(waits - 1), 100);
  };

  const follow = () => setTimeout(() => document.getElementById('compare-run')
    ?.scrollIntoView({ behavior: calm.matches ? 'auto' : 'smooth', block: 'start' }), 200);

  document.addEventListener('change', (event) => {
    if (event.target.closest('#playground-mode')) sessionStorage.setItem(MODE, event.target.value);
  });
  document.addEventListener('click', (event) => {
    if (event.target.closest?.('#tab-playground-button')) restore();
    if (event.target.closest?.('#compare-start')) follow();
  });
})();
