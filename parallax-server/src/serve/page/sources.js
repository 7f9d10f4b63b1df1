// Every source in a row: how fresh it is, how it went, what it holds.

import { sparkline, state } from './chart.js';
import { h, icon } from './dom.js';
import { isFailing, link, now, number, plural, source, sourceKey, syncLink, time } from './format.js';
import { cell, chips, empty, head, loading, right, syncNow, td, trouble } from './parts.js';

/** Rows at a time: more would be slow to draw, and nobody reads them. */
const PAGE = 50;

const held = (one) => one.entities_held + one.relationships_held;
const kept = (one) => one.entities_kept + one.relationships_kept;
const size = (one) => one.entities + one.relationships;

const isBusy = ({ activity }) => activity === 'running' || activity === 'waiting';

/** Tells whether nothing was committed for much longer than a sync takes to come round. */
const isStale = (one) =>
  one.configured && one.every_ms && (!one.last_success_at || now() - Date.parse(one.last_success_at) > 3 * one.every_ms + 60_000);

const FILTERS = {
  all: ['All', () => true],
  failing: ['Failing', isFailing],
  stale: ['Stale', isStale],
  held: ['Held', (one) => held(one) > 0],
  kept: ['Kept', (one) => kept(one) > 0],
  running: ['Running', isBusy],
};

const most = (count) => (a, b) => count(b) - count(a);
/** Not by the rules of a language, which are slow: names and times of the API need none. */
const by = (field, none = '') => (a, b) => {
  const [one, other] = [a[field] ?? none, b[field] ?? none];
  return one < other ? -1 : one > other ? 1 : 0;
};
const [byConnector, byAccount, byOutcome] = ['connector_id', 'account_id', 'last_outcome'].map((field) => by(field));

const ORDERS = {
  name: (a, b) => byConnector(a, b) || byAccount(a, b),
  fresh: by('last_success_at'),
  outcome: (a, b) => b.failures - a.failures || byOutcome(a, b),
  size: most(size),
  kept: most(kept),
  held: most(held),
  due: by('next_due_at', '~'),
};

const name = ({ connector_id, account_id }) => `${connector_id} ${account_id}`;

export function sourcesView(app, _places, parameters) {
  const { live } = app;
  const show = FILTERS[parameters.show] ? parameters.show : 'all';
  const order = ORDERS[parameters.by] ? parameters.by : 'name';
  const words = parameters.q ?? '';
  const go = (change) => app.go(link(['sources'], { ...parameters, page: null, ...change }));
  return {
    title: 'Sources',
    render() {
      if (!live.sources) return trouble(live) ?? loading();
      const all = [...live.sources.values()];
      const found = all.filter((one) => FILTERS[show][1](one) && name(one).toLowerCase().includes(words.toLowerCase()));
      found.sort((a, b) => ORDERS[order](a, b) || ORDERS.name(a, b));
      const pages = Math.max(1, Math.ceil(found.length / PAGE));
      const page = Math.min(Math.max(Number(parameters.page) || 1, 1), pages);
      const rows = found.slice((page - 1) * PAGE, page * PAGE);
      live.recall(rows);
      return [
        trouble(live),
        h('div', { class: 'toolbar' },
          h('label', { class: 'search' }, icon('search'), h('span', { class: 'unseen' }, 'Filter by name'),
            h('input', { type: 'search', placeholder: 'Filter by name', value: words, oninput: ({ target }) => go({ q: target.value }) })),
          chips('Show', Object.entries(FILTERS).map(([key, [title, test]]) => [key, [title, h('small', null, number(all.filter(test).length))]]),
            show, (key) => go({ show: key === 'all' ? null : key }))),
        rows.length === 0
          ? all.length === 0
            ? empty('waiting', 'No sources yet', 'Name a connector in parallax.toml and start parallax serve again.')
            : empty('search', 'No such source', 'Nothing here matches. ', h('a', { href: link(['sources']) }, 'Show all'))
          : table(app, rows, order, (by) => go({ by: by === 'name' ? null : by })),
        pages > 1 && h('nav', { class: 'pager', 'aria-label': 'Pages' },
          h('button', { disabled: page === 1, onclick: () => go({ page: page - 1 }) }, 'Previous'),
          h('span', null, `${number((page - 1) * PAGE + 1)}–${number(Math.min(page * PAGE, found.length))} of ${number(found.length)}`),
          h('button', { disabled: page === pages, onclick: () => go({ page: page + 1 }) }, 'Next')),
      ];
    },
  };
}

function table(app, rows, order, sort) {
  const column = (key, title, kind = '') =>
    h('th', { scope: 'col', class: kind, 'aria-sort': key && (order === key ? (key === 'name' || key === 'fresh' || key === 'due' ? 'ascending' : 'descending') : 'none') },
      key ? h('button', { class: 'sort', onclick: () => sort(key) }, title) : title);
  return h('div', { class: 'scroll panel' },
    h('table', { class: 'rows sources' },
      h('caption', { class: 'unseen' }, 'Sources'),
      h('thead', null, h('tr', null,
        column('name', 'Source'), column('fresh', 'Fresh'), column('outcome', 'Last outcome'),
        column('size', 'Entities', 'n'), column(null, 'Relationships', 'n'), column(null, 'Last syncs'),
        column('kept', 'Kept', 'n'), column('held', 'Held', 'n'), column('due', 'Next'),
        h('th', { scope: 'col' }, h('span', { class: 'unseen' }, 'Actions')))),
      h('tbody', null, rows.map((one) => row(app, one)))));
}

function row(app, one) {
  const { connector_id, account_id, activity } = one;
  return h(
    'tr',
    { key: sourceKey(one), 'data-source': connector_id },
    head([
      h('a', { href: link(['syncs'], { connector_id, account_id }) }, source(one)),
      one.broken && h('small', { class: 'failed', title: one.broken.help }, `cannot be synced: ${one.broken.reason}`)]),
    td(freshness(one)),
    h('td', null,
      one.last_outcome ? h('a', { href: syncLink({ ...one, sync_id: one.last_sync_id }) }, state(one.last_outcome)) : h('span', { class: 'faint' }, 'not synced'),
      one.failures > 1 && h('small', { class: 'failed' }, ` ${number(one.failures)} in a row`)),
    right(number(one.entities)),
    right(number(one.relationships)),
    td(sparkline(one.recent)),
    cell(kept(one), 'partial'),
    right(held(one) ? h('a', { class: 'held', href: link(['held']) }, number(held(one))) : h('span', { class: 'faint' }, '–')),
    td(one.broken ? ['tried again ', time(one.next_due_at)] : activity === 'running' ? h('a', { href: syncLink({ ...one, sync_id: one.running_sync_id }) }, state('running')) : activity === 'waiting' ? state('waiting', 'queued')
      : one.next_due_at ? time(one.next_due_at) : h('span', { class: 'faint' }, 'not scheduled')),
    right(one.configured && !one.broken && h('button', { disabled: isBusy(one), onclick: () => syncNow(app, one), 'aria-label': `Sync ${connector_id} ${account_id} now` }, 'Sync now')),
  );
}

/** Describes how fresh a source is: when it was committed last, beside how often it should be. */
function freshness(one) {
  const stale = isStale(one);
  const age = one.last_success_at ? now() - Date.parse(one.last_success_at) : Infinity;
  const share = one.every_ms ? Math.min(1, age / (3 * one.every_ms + 60_000)) : 0;
  const title = one.schedule ? `${one.schedule}; ${plural(one.syncs, 'sync', 'syncs')} on record` : undefined;
  return h('span', { class: `fresh ${stale ? 'stale' : ''}`, title },
    stale && icon('warning', 'partial'), time(one.last_success_at),
    one.every_ms && h('i', { class: 'meter', 'aria-hidden': 'true' }, h('i', { style: { width: `${(100 * share).toFixed(1)}%` } })));
}
