// What gradio's chatbot holds, read: texts, titles, numbers of answers, a conversation as a file.
(() => {
  const TITLE_LENGTH = 60;

  const textOf = ({ content }) =>
    (Array.isArray(content) ? content.map((part) => part.text ?? '').join('') : String(content ?? ''));
  const isThought = ({ metadata }) => Boolean(metadata?.title);
  const questions = (messages) => messages.filter(({ role }) => role === 'user').map(textOf);
  const titleOf = (messages) => {
    const line = (questions(messages)[0] ?? '').trim().split('\n')[0];
    return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH).trimEnd()}…` : line;
  };
  const slim = (messages) => messages.map((message) => ({
    role: message.role,
    content: [{ type: 'text', text: textOf(message) }],
    ...(message.metadata && { metadata: JSON.parse(JSON.stringify(message.metadata)) }),
  }));

  // The numbers of an answer, "46.2 tok/s · 12 tokens", as a line.
  const numbersOf = (message) => {
    if (!message?.metadata?.log || isThought(message)) return null;
    const line = Object.assign(document.createElement('p'), { className: 'mi-stats' });
    line.append(...message.metadata.log.split(' · ').map((part) => {
      const [, figure, words] = /^([\d.]+(?: s)?)? ?(.*)$/.exec(part);
      const span = document.createElement('span');
      if (figure) span.append(Object.assign(document.createElement('b'), { textContent: figure }), ' ');
      span.append(words);
      return span;
    }));
    return line;
  };
  // Under each answer but the last, whose numbers stand under the conversation.
  const drawNumbers = (said) => {
    const answers = [];  // the last message of each run of answers: gradio draws a run as one row
    said.forEach((message, place, all) => {
      if (message.role !== 'user' && all[place + 1]?.role !== message.role) answers.push(message);
    });
    if (said.at(-1)?.role !== 'user') answers.pop();
    document.querySelectorAll('#chat-log .message-row.bot-row').forEach((row, place) => {
      const there = row.querySelector('.mi-stats');
      const line = numbersOf(answers[place]);
      if (there?.textContent === line?.textContent) return;
      there?.remove();
      if (line) (row.querySelector('.flex-wrap') ?? row).append(line);
    });
  };

  // For keyboards and screen readers: gradio's thoughts open by a title that is a button with another one in it, and
  // its blocks of code scroll by mouse only.
  const makeReachable = () => {
    document.querySelectorAll('#chat-log .thought-group > [role=button]').forEach((title) => {
      title.setAttribute('aria-expanded', title.classList.contains('expanded'));
      title.querySelectorAll('button').forEach((arrow) => {
        arrow.disabled = true;
        arrow.setAttribute('aria-hidden', 'true');
      });
    });
    document.querySelectorAll('#chat-log pre').forEach((block) => { block.tabIndex = 0; });
  };
  const tidy = (said) => {
    drawNumbers(said);
    makeReachable();
  };
  for (const kind of ['click', 'keyup']) {
    document.addEventListener(kind, (event) => { if (event.target.closest('.thought-group')) setTimeout(makeReachable, 50); });
  }

  // A conversation as others may read it. names: of its controls.
  const exported = (chat, names) => {
    const messages = [];
    let reasoning = '';
    for (const message of chat.messages) {
      if (isThought(message)) {
        reasoning += textOf(message);
        continue;
      }
      const numbers = message.metadata?.log;
      messages.push({
        role: message.role,
        content: textOf(message),
        ...(reasoning && { reasoning }),
        ...(numbers && { numbers }),
      });
      reasoning = '';
    }
    return {
      title: chat.title,
      model: chat.model,
      created: new Date(chat.created).toISOString(),
      updated: new Date(chat.updated).toISOString(),
      settings: Object.fromEntries(names.map((name, place) => [name, chat.controls?.[place] ?? null])),
      messages,
    };
  };

  window.millm.messages = { questions, titleOf, slim, numbersOf, tidy, exported };
})();
