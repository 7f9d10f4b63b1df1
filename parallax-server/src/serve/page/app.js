// The page around the views.

import { token } from './api.js';
import { h, icon, patch } from './dom.js';
import { duration, number } from './format.js';
import { exploreView } from './explore.js';
import { heldView } from './held.js';
import { Live } from './live.js';
import { nowView } from './now.js';
import { sourcesView } from './sources.js';
import { syncsView } from './syncs.js';
import { syncView } from './sync.js';

const VIEWS = { '': nowView, sources: sourcesView, syncs: syncsView, sync: syncView, held: heldView, explore: exploreView };
const TABS = [['', 'Now'], ['sources', 'Sources'], ['syncs', 'Syncs'], ['held', 'Held'], ['explore', 'Explore']];
/** How often is drawn at most what ticks and what does not, and at least where nothing happens. */
const TICK = { busy: 100, calm: 400, idle: 1_000 };
/** How long a message stays. */
const MESSAGE = 8_000;
const THEMES = ['auto', 'light', 'dark'];

const element = (id) => document.getElementById(id);
const main = element('main');

let view = null;
let planned = false;
let drawnAt = 0;
let address = null;

const live = new Live(() => app.update(), () => app.refresh());

const app = {
  live,
  /** What the view has asked for. */
  loads: [],
  /** Draws soon, once for all that changed. Where nothing ticks, that may be less often. */
  update() {
    if (planned) return;
    planned = true;
    const pace = view.ticks ? TICK.busy : TICK.calm;
    // No frame comes while the page is hidden.
    const frame = () => (document.hidden ? draw() : requestAnimationFrame(draw));
    setTimeout(frame, Math.max(0, drawnAt + pace - performance.now()));
  },
  /** Opens a view. Within the same one it leaves no mark in the browser's history. */
  go(href) {
    const place = (hash) => hash.split('?')[0];
    if (place(href) === place(location.hash)) {
      history.replaceState(null, '', href);
      open();
    } else location.hash = href;
  },
  refresh: () => view?.refresh?.(),
  say(message, kind = 'done') {
    const box = element('messages');
    const line = document.createElement('p');
    line.className = `message ${kind}`;
    patch(line, [icon(kind === 'failed' ? 'warning' : 'ok', kind), h('span', null, message)]);
    box.append(line);
    setTimeout(() => line.remove(), MESSAGE);
  },
  askForToken,
};

function open() {
  if (/^#token=/.test(location.hash)) {
    token.adopt();
    live.restart();
  }
  const [place, query] = location.hash.replace(/^#\/?/, '').split('?');
  const [name, ...places] = place.split('/').map(safeDecode);
  const isNew = address?.split('?')[0] !== location.hash.split('?')[0];
  address = location.hash;
  view?.close?.();
  for (const { abort } of app.loads.splice(0)) abort?.abort();
  const make = VIEWS[name] ?? nowView;
  view = make(app, places, Object.fromEntries(new URLSearchParams(query)));
  for (const [tab] of TABS) {
    const isCurrent = tab === (name === 'sync' ? 'syncs' : VIEWS[name] ? name : '');
    if (isCurrent) element(`tab-${tab}`).setAttribute('aria-current', 'page');
    else element(`tab-${tab}`).removeAttribute('aria-current');
  }
  draw();
  if (isNew && drawnOnce) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
  drawnOnce = true;
}

let drawnOnce = false;

function safeDecode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function draw() {
  planned = false;
  drawnAt = performance.now();
  document.title = `${view.title} · Parallax`;
  patch(main, [h('h1', { class: 'unseen' }, view.title), needsToken() ?? view.render()]);
  patch(element('connection'), connection());
  const held = live.changesets?.length ?? 0;
  patch(element('tab-held'), ['Held', held > 0 && h('span', { class: 'badge' }, number(held), h('span', { class: 'unseen' }, ' waiting'))]);
  const { version, store } = live.status ?? {};
  patch(element('about'), version ? [`Parallax ${version}`, ' · ', h('code', null, store)] : ['Parallax']);
}

/** Asks for a token where nothing can be read without. */
function needsToken() {
  if (live.problem?.status !== 401 && live.connection.problem?.status !== 401) return null;
  return h('div', { class: 'empty' }, icon('key'), h('h3', null, 'A token is needed'),
    h('p', null, 'Open the address with #token=… that the daemon gave you, or paste a token. It is kept until this tab is closed.'),
    h('button', { class: 'primary', onclick: askForToken }, 'Enter a token'));
}

function connection() {
  const { state, retryAt, since } = live.connection;
  const kind = state === 'live' ? 'done' : state === 'lost' ? 'failed' : 'waiting';
  // A blink of the connection is no news.
  const blink = state === 'lost' && Date.now() - since < 300;
  const words = { live: 'Live', connecting: 'Connecting', lost: 'Connection lost' };
  return [h('span', { class: `state ${blink ? 'waiting' : kind}`, role: 'status' },
    icon(state === 'live' ? 'ok' : state === 'lost' ? 'warning' : 'waiting'), words[state]),
    state === 'lost' && h('small', { class: 'faint' }, retryAt > Date.now() ? `again in ${duration(Math.ceil((retryAt - Date.now()) / 1_000) * 1_000)}` : 'trying again')];
}

function askForToken() {
  if (document.querySelector('dialog')) return;
  const dialog = document.createElement('dialog');
  const input = () => dialog.querySelector('input');
  const take = () => {
    token.set(input().value.trim());
    dialog.close();
    live.restart();
  };
  patch(dialog, [
    h('h2', { id: 'token' }, 'Token'),
    h('p', null, 'To change something, the admin token is needed. The daemon named the file of its tokens in its log as it started. It is kept in this tab only.'),
    h('label', null, 'Token', h('input', { type: 'password', autocomplete: 'off', spellcheck: 'false', onkeydown: (event) => event.key === 'Enter' && take() })),
    h('footer', null,
      token.get() && h('button', { onclick: () => { input().value = ''; take(); } }, 'Forget it'),
      h('button', { onclick: () => dialog.close() }, 'Cancel'),
      h('button', { class: 'primary', onclick: take }, 'Use it')),
  ]);
  dialog.setAttribute('aria-labelledby', 'token');
  dialog.onclose = () => dialog.remove();
  document.body.append(dialog);
  dialog.showModal();
}

function theme() {
  const read = () => localStorage.getItem('parallax-theme') ?? 'auto';
  const button = element('theme');
  const show = () => {
    const name = read();
    document.documentElement.dataset.theme = name;
    patch(button, [icon(name)]);
    button.setAttribute('aria-label', `Theme: ${name}`);
    button.title = `Theme: ${name}`;
  };
  button.onclick = () => {
    localStorage.setItem('parallax-theme', THEMES[(THEMES.indexOf(read()) + 1) % THEMES.length]);
    show();
  };
  show();
}

function tick() {
  const busy = [...live.runs.values()].some((run) => !run.isOver) || live.connection.state === 'lost';
  setTimeout(tick, busy ? TICK.busy : TICK.idle);
  if (!document.hidden) app.update();
}

element('token').onclick = askForToken;
patch(element('token'), [icon('key')]);
theme();
token.adopt();
addEventListener('hashchange', open);
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
  const search = main.querySelector('input[type=search]');
  if (search) {
    event.preventDefault();
    search.focus();
  }
});
live.start();
open();
tick();
