// What the page does when the server does not answer: it says so, waits, and goes on.
// The page asks every second what has changed. While nobody answers, its question is held and asked again, and the
// first answer draws everything that happened meanwhile. Buttons of gradio's queue are not held: they fail at once.
(() => {
  const AGAIN_MS = 500;
  const send = window.fetch;
  const gone = new Set([502, 503, 504]);  // what a proxy says for a server that is away
  const pause = () => new Promise((done) => setTimeout(done, AGAIN_MS));
  const banner = (away) => document.getElementById('away')?.toggleAttribute('hidden', !away);
  const isQuestion = (asked) => /\/gradio_api\/run\/|page\/live\?/.test(asked[0]?.url ?? asked[0]);
  let away = false;

  // The listeners by which a page calls the server; another miLLM may have others under the same numbers.
  const listeners = (config) => JSON.stringify(config.dependencies.map(({ id, targets }) => [id, targets]));
  const comeBack = async () => {
    const answer = await send('config');
    if (!answer.ok || listeners(await answer.json()) !== listeners(window.gradio_config)) location.reload();
    away = false;
    banner(false);
  };

  const attempt = async (asked) => {
    try {
      const answer = await send(...asked);
      return gone.has(answer.status) ? null : answer;
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      return null;
    }
  };

  window.fetch = async (...asked) => {
    if (!isQuestion(asked)) return send(...asked);
    for (;;) {
      const answer = await attempt(asked);
      if (answer && !away) return answer;
      if (answer) await comeBack().catch(() => {});  // away again
      else banner(away = true);
      if (away) await pause();
      else return answer;
    }
  };
})();
