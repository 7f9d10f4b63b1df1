// Syncs on record, newest first.

import { get } from './api.js';
import { state } from './chart.js';
import { h } from './dom.js';
import { both, duration, id, link, source, syncLink, time } from './format.js';
import { cell, chips, empty, head, Loaded, right, syncNow, table, td } from './parts.js';
import { runKey } from './run.js';

const PAGE = 50;
const OUTCOMES = ['committed', 'partial', 'failed', 'approved'];

export function syncsView(app, _places, parameters) {
  const { connector_id, account_id, outcome, before } = parameters;
  const list = new Loaded(app, (signal) =>
    get(['syncs'], { connector_id, account_id, outcome, cursor: before, limit: PAGE }, { signal }));
  list.reload();
  const here = (change) => link(['syncs'], { ...parameters, before: null, ...change });
  const one = connector_id && { connector_id, account_id };
  return {
    title: one ? `Syncs of ${connector_id}` : 'Syncs',
    refresh: () => before || list.reload(),
    render: () => [
      h('div', { class: 'toolbar' },
        one && h('h2', { class: 'of' }, source(one)),
        one && h('a', { href: link(['syncs']) }, 'All sources'),
        chips('Outcome', [['', 'All'], ...OUTCOMES.map((name) => [name, state(name)])], outcome ?? '', (outcome) => app.go(here({ outcome }))),
        one && h('button', { class: 'primary', onclick: () => syncNow(app, one) }, 'Sync now')),
      list.show(({ items, next }) =>
        items.length === 0
          ? empty('waiting', 'No syncs', outcome ? 'None ended like this. ' : 'None has ended yet. A source is synced when it is due, or when you say so under ', outcome ? h('a', { href: here({ outcome: null }) }, 'Show all') : h('a', { href: link(['sources']) }, 'Sources'))
          : [listed(items), h('nav', { class: 'pager', 'aria-label': 'Pages' },
              before && h('a', { class: 'button', href: here({}) }, 'Newest'),
              next && h('a', { class: 'button', href: here({ before: next }) }, 'Older'))]),
    ],
  };
}

function listed(syncs) {
  const columns = ['Source', 'Sync', 'Outcome', 'Ended', '#Took', '#Created', '#Updated', '#Deleted', '#Kept', '#Held', '#Unchanged'];
  return h('div', { class: 'panel' }, table('Syncs', columns, syncs.map((sync) =>
    h('tr', { key: runKey(sync) },
      head(source(sync)),
      td(h('a', { href: syncLink(sync) }, id(sync.sync_id))),
      td(state(sync.outcome)),
      td(time(sync.committed_at)),
      right(duration(sync.duration_ms)),
      cell(both(sync, 'created'), 'plus'), cell(both(sync, 'updated'), 'changed'), cell(both(sync, 'deleted'), 'minus'),
      cell(both(sync, 'kept'), 'partial'), cell(both(sync, 'held'), 'held'), cell(both(sync, 'unchanged'))))));
}
