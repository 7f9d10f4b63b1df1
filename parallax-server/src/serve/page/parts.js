// What several views are made of.

import { send } from './api.js';
import { h, icon, patch } from './dom.js';
import { number, syncLink } from './format.js';

/** Something that is asked for, and what came of it. */
export class Loaded {
  constructor(app, load) {
    Object.assign(this, { app, load, value: null, problem: null, isLoading: false });
    app.loads.push(this);
  }

  async reload() {
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    this.isLoading = true;
    try {
      this.value = await this.load(abort.signal, this.value);
      this.problem = null;
    } catch (error) {
      if (abort.signal.aborted) return;
      this.problem = error;
    }
    if (abort.signal.aborted) return;
    this.isLoading = false;
    this.app.update();
  }

  /** Describes the value, or why it is not there. */
  show(describe) {
    if (this.problem && !this.value) return problem(this.problem, () => this.reload());
    if (!this.value) return loading();
    return [this.problem && problem(this.problem, () => this.reload()), describe(this.value)];
  }
}

export const loading = () => h('p', { class: 'loading faint' }, 'Loading…');

/** Describes what went wrong, and what to do. */
export function problem(error, again) {
  return h(
    'div',
    { class: 'note failed', role: 'alert' },
    icon('warning', 'failed'),
    h('div', null, h('strong', null, error.message), error.help && h('p', null, error.help)),
    again && h('button', { onclick: again }, 'Try again'),
  );
}

/** Describes why what is known of the daemon is not up to date, if so. */
export const trouble = (live) => live.problem && problem(live.problem, () => live.refresh());

/** Describes a place where nothing is, and what would fill it. */
export function empty(picture, title, ...text) {
  return h('div', { class: 'empty' }, icon(picture), h('h3', null, title), h('p', null, text));
}

export function section(title, props, ...children) {
  const { extra, ...rest } = props ?? {};
  return h('section', { ...rest, 'aria-label': title, class: `panel ${rest.class ?? ''}` },
    h('header', null, h('h2', null, title), extra), children);
}

/** Describes a table; the titles of columns of numbers begin with `#`. */
export function table(caption, columns, rows, kind = 'rows') {
  const head = columns.map((title) =>
    title[0] === '#' ? h('th', { scope: 'col', class: 'n' }, title.slice(1)) : h('th', { scope: 'col' }, title));
  return h('div', { class: 'scroll' },
    h('table', { class: kind },
      h('caption', { class: 'unseen' }, caption),
      head.length > 0 && h('thead', null, h('tr', null, head)),
      h('tbody', null, rows)));
}

/** Describes the head of a row. */
export const head = (...of) => h('th', { scope: 'row' }, of);
export const td = (...of) => h('td', null, of);
export const right = (...of) => h('td', { class: 'n' }, of);
export const quiet = (...of) => h('p', { class: 'faint pad' }, of);

/** Describes a choice of one: keys, titles, and what is done. */
export const chips = (label, choices, chosen, choose) =>
  h('div', { class: 'chips', role: 'group', 'aria-label': label }, choices.map(([key, title]) =>
    h('button', { key, 'aria-pressed': String(key === chosen), onclick: () => choose(key) }, title)));

/** Describes a cell with a number, or a dash for none. */
export const cell = (n, kind = '') => h('td', { class: `n ${n ? kind : 'faint'}` }, n ? number(n) : '–');

/** Asks before something is done. Resolves to whether it shall be. */
export function ask({ title, body, action, kind = 'primary' }) {
  return new Promise((resolve) => {
    const dialog = document.createElement('dialog');
    let answer = false;
    const close = (yes) => {
      answer = yes;
      dialog.close();
    };
    patch(dialog, [
      h('h2', { id: 'ask' }, title),
      body,
      h('footer', null,
        h('button', { onclick: () => close(false) }, 'Cancel'),
        h('button', { class: kind, onclick: () => close(true) }, action)),
    ]);
    dialog.setAttribute('aria-labelledby', 'ask');
    dialog.onclose = () => {
      dialog.remove();
      resolve(answer);
    };
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Does something on the daemon, and says how it went. Returns the answer, or null. */
export async function act(app, method, places, done) {
  try {
    const answer = await send(method, places);
    app.say(done(answer));
    app.live.refresh();
    return answer;
  } catch (error) {
    app.say([h('strong', null, error.message), error.help && ` – ${error.help}`], 'failed');
    if (['unauthorized', 'admin_token_needed'].includes(error.code)) app.askForToken();
    return null;
  }
}

export const syncNow = (app, { connector_id, account_id }) =>
  act(app, 'POST', ['sources', connector_id, account_id, 'syncs'], ({ sync_id }) => [
    'Sync of ', h('b', null, connector_id), ' asked for. ',
    h('a', { href: syncLink({ connector_id, account_id, sync_id }) }, 'Watch it'),
  ]);

/** Describes a value of a property. */
export function value(of) {
  if (of === undefined) return h('span', { class: 'faint' }, '–');
  if (typeof of === 'string') return h('span', { class: 'value' }, of);
  return h('code', { class: 'value' }, JSON.stringify(of));
}
