// Deletes that wait for somebody's word.

import { get } from './api.js';
import { state } from './chart.js';
import { h, icon } from './dom.js';
import { counts, link, number, plural, source, syncLink, time } from './format.js';
import { act, ask, chips, empty, Loaded, quiet, section, table, td } from './parts.js';

export function heldView(app, [changeset], parameters) {
  return changeset ? one(app, changeset) : list(app, parameters);
}

/** How many are shown, and how many more each time. */
const PAGE = 50;

function list(app, { all }) {
  let shown = PAGE;
  const found = new Loaded(app, (signal) => get(['changesets'], { all: all ? true : null }, { signal }));
  found.reload();
  const more = () => {
    shown += PAGE;
    app.update();
  };
  return {
    title: 'Held deletes',
    refresh: () => found.reload(),
    render: () => [
      h('div', { class: 'toolbar' },
        chips('Show', [['', 'Waiting'], ['1', 'Decided, too']], all ?? '', (all) => app.go(link(['held'], { all })))),
      found.show((changesets) =>
        changesets.length === 0
          ? empty('ok', 'Nothing is held', 'Where a sync would delete suspiciously much, it holds the deletes, and they wait here for your word.')
          : [changesets.slice(0, shown).map((one) => card(app, one)),
              changesets.length > shown && h('button', { class: 'wide', onclick: more }, 'Show more')]),
    ],
  };
}

function card(app, one) {
  const back = one.entities_at_first + one.relationships_at_first - one.entities - one.relationships;
  return h(
    'article',
    { key: one.changeset, class: 'panel changeset', 'data-changeset': one.changeset },
    h('header', null,
      h('h2', null, h('a', { href: link(['held', String(one.changeset)]) }, `Changeset ${one.changeset}`)),
      source(one), state(one.state), h('span', { class: 'push' }),
      one.state === 'open' && decide(app, one)),
    h('p', { class: 'lead' }, icon('held', 'held'), h('span', null, h('b', null, counts(one.entities_at_first, one.relationships_at_first)),
      ' held: ', one.reason, '.')),
    h('p', { class: 'faint' }, 'Held ', time(one.held_at),
      one.held_by_sync_id && [' by sync ', h('a', { href: syncLink({ ...one, sync_id: one.held_by_sync_id }) }, h('code', null, one.held_by_sync_id))],
      one.state === 'open' && back > 0 && `. ${plural(back, 'record has', 'records have')} come back since`,
      one.closed_at && ['. ', one.state, ' ', time(one.closed_at)], '.'),
  );
}

function decide(app, one) {
  const what = counts(one.entities, one.relationships);
  const where = h('b', null, `${one.connector_id}, account ${one.account_id}`);
  const place = (word) => ['changesets', String(one.changeset), word];
  const reload = (answer) => answer && app.refresh();
  // Records may have come back since it was shown, and somebody else may have decided.
  const told = (state, done) => ({ entities, relationships, repeated }) =>
    `Changeset ${one.changeset} ${repeated ? 'had been' : 'is'} ${state}: ${counts(entities, relationships)} ${done}.`;
  const approve = async () => {
    const yes = await ask({
      title: `Delete ${what}?`,
      body: [h('p', null, 'They go from the store, and relationships with them are no longer shown. They are of ', where, '.'),
        h('p', null, 'The history keeps what they were. A record that the system has after all is created again by the next sync.')],
      action: `Delete ${what}`,
      kind: 'danger',
    });
    if (yes) reload(await act(app, 'POST', place('approve'), told('approved', 'deleted')));
  };
  const reject = async () => {
    const yes = await ask({
      title: `Keep ${what}?`,
      body: [h('p', null, 'They stay as they are, though they were not found. They are of ', where, '.'),
        h('p', null, 'Nobody is asked about them again until a sync has seen them again.')],
      action: 'Keep them',
    });
    if (yes) reload(await act(app, 'POST', place('reject'), told('rejected', 'kept')));
  };
  return h('div', { class: 'actions' },
    h('button', { onclick: reject }, 'Reject…'),
    h('button', { class: 'danger', onclick: approve }, 'Approve…'));
}

function one(app, changeset) {
  const detail = new Loaded(app, (signal) => get(['changesets', changeset], {}, { signal }));
  // All that were loaded, each page behind the one before.
  const records = new Loaded(app, async (signal, before) => {
    const page = await get(['changesets', changeset, 'records'], { limit: 100, cursor: before?.next }, { signal });
    return { items: [...(before?.items ?? []), ...page.items], next: page.next };
  });
  const load = () => {
    detail.reload();
    records.value = null;
    records.reload();
  };
  load();
  return {
    title: `Changeset ${changeset}`,
    refresh: () => detail.reload(),
    render: () => [
      h('p', { class: 'crumbs' }, h('a', { href: link(['held']) }, 'All held deletes')),
      detail.show((found) => [
        card(app, found),
        section(found.state === 'approved' ? 'What went' : 'What would go', null,
          h('ul', { class: 'types' }, found.types.map((type) => h('li', { key: `${type.kind} ${type.name}` }, h('b', null, number(type.records)), ' ', type.name))),
          records.show(({ items, next }) =>
            items.length === 0
              ? quiet('None of its records is held any more.')
              : [table('Records', ['Type', 'Name', 'Key'], items.map((record) => h('tr', { key: record.id },
                  td(record.name),
                  h('td', { class: 'name' }, record.kind === 'entity' ? h('a', { href: link(['explore', record.id]) }, record.display_name ?? record.key) : record.display_name),
                  td(record.key && h('code', null, record.key))))),
                next && h('button', { class: 'wide', disabled: records.isLoading, onclick: () => records.reload() }, 'Show more')])),
      ]),
    ],
  };
}
