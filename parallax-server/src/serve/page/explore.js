// What is stored: search, one entity, its neighbours, and why it is there.

import { get } from './api.js';
import { neighbours, state } from './chart.js';
import { h, icon } from './dom.js';
import { link, number, source, sourceKey, syncLink, time } from './format.js';
import { empty, head, Loaded, quiet, right, section, table, td, value } from './parts.js';

/** A pause in typing that is long enough to search. */
const PAUSE = 150;

export function exploreView(app, [id], parameters) {
  return id ? entity(app, id) : search(app, parameters);
}

const entityLink = (id) => link(['explore', id]);

function search(app, parameters) {
  const { q = '', type } = parameters;
  const types = new Loaded(app, (signal) => get(['types'], {}, { signal }));
  const found = new Loaded(app, async (signal, before) => {
    const limits = { type, limit: 50, cursor: before?.next };
    const page = q ? await get(['search'], { q, ...limits }, { signal }) : await get(['entities'], limits, { signal });
    return { ...page, items: [...(before?.items ?? []), ...page.items] };
  });
  (q || type ? found : types).reload();
  let typing;
  const typed = (words) => {
    clearTimeout(typing);
    typing = setTimeout(() => app.go(link(['explore'], { q: words, type })), PAUSE);
  };
  return {
    title: 'Explore',
    close: () => clearTimeout(typing),
    render: () => [
      h('div', { class: 'toolbar' },
        h('label', { class: 'search big' }, icon('search'), h('span', { class: 'unseen' }, 'Search entities'),
          h('input', { type: 'search', placeholder: 'How a name or a key begins', value: q, oninput: ({ target }) => typed(target.value), autofocus: true })),
        type && h('button', { class: 'chip', onclick: () => app.go(link(['explore'], { q })) }, `only ${type} ✕`)),
      q || type
        ? found.show((page) => results(page, found, q))
        : types.show((listed) => overview(listed, q)),
    ],
  };
}

function overview(types) {
  if (types.length === 0) {
    return empty('search', 'Nothing is stored yet', 'What the first sync finds can be looked through here.');
  }
  const entities = types.filter(({ kind }) => kind === 'entity');
  const verbs = types.filter(({ kind }) => kind === 'relationship');
  const most = (list) => Math.max(...list.map(({ records }) => records), 1);
  const shares = (title, list, href) =>
    section(title, null, table(title, [], [...list].sort((a, b) => b.records - a.records).map(({ name, records }) =>
      h('tr', { key: name },
        head(href ? h('a', { href: href(name) }, name) : name),
        h('td', { class: 'share', 'aria-hidden': 'true' }, h('i', { style: { width: `${100 * Math.sqrt(records / most(list))}%` } })),
        right(number(records)))), 'list shares'));
  return h('div', { class: 'columns' },
    shares('Entities by type', entities, (name) => link(['explore'], { type: name })),
    shares('Relationships by verb', verbs));
}

function results({ items, next, partial }, found, q) {
  if (items.length === 0 && !next) {
    return empty('search', 'No such entity', q ? 'No key or name begins so. Upper and lower case are alike.' : 'No entity has this type any more.');
  }
  return [
    h('div', { class: 'panel' }, table('Entities', ['Name', 'Type', 'Class', 'Key', 'Source', 'Changed'], items.map((one) =>
      h('tr', { key: one.id + sourceKey(one) },
        h('th', { scope: 'row', class: 'name' }, h('a', { href: entityLink(one.id) }, one.display_name ?? one.key), one.held_changeset != null && state('held')),
        td(one.type), h('td', { class: 'faint' }, one.class ?? ''), h('td', { class: 'key' }, h('code', null, one.key)),
        td(source(one)), td(time(one.changed?.committed_at)))))),
    partial && h('p', { class: 'faint' }, 'The time for one search was up: there may be more.'),
    next && h('button', { class: 'wide', disabled: found.isLoading, onclick: () => found.reload() }, partial ? 'Search on' : 'Show more'),
  ];
}

function entity(app, id) {
  const told = new Loaded(app, (signal) => get(['explain'], { subject: id }, { signal }));
  // It may be gone, and explained all the same.
  const or = (none) => (error) => {
    if (error.status === 404) return none;
    throw error;
  };
  const found = new Loaded(app, (signal) => get(['entities', id], {}, { signal }).catch(or([])));
  const near = new Loaded(app, (signal) => get(['entities', id, 'relationships'], { limit: 200 }, { signal }).catch(or({ items: [] })));
  let most = 50;
  const past = new Loaded(app, (signal) => get(['history'], { subject: id, limit: most + 1 }, { signal }));
  const more = () => {
    most = 999;
    past.reload();
  };
  const all = [told, found, near, past];
  all.forEach((one) => one.reload());
  return {
    title: 'Entity',
    refresh: () => all.forEach((one) => one.reload()),
    render: () => [
      h('p', { class: 'crumbs' }, h('a', { href: link(['explore']) }, 'Explore'),
        told.value?.[0]?.type && [' / ', h('a', { href: link(['explore'], { type: told.value[0].type }) }, told.value[0].type)]),
      told.show((explained) => explained.map((record) => [
        h('div', { class: 'head panel', key: 'head' },
          h('header', null, h('h2', { class: 'name' }, record.display_name ?? record.key), h('code', null, record.type), h('code', { class: 'faint' }, record.key)),
          record.sources.map((one) => why(one))),
      ])),
      found.value?.length > 0 && section('Properties', null, properties(found.value)),
      near.value?.items.length > 0 && told.value && section('Neighbours', {
        extra: h('span', { class: 'faint' }, near.value.next ? `the first ${number(near.value.items.length)}` : number(near.value.items.length)),
      }, neighbours(told.value[0], near.value.items, entityLink), relationships(near.value.items)),
      section('History', null, past.show((records) => {
        const events = records.flatMap((record) => record.events);
        return [timeline(events.slice(0, most)), events.length > most && h('button', { class: 'wide', onclick: more }, 'Show more')];
      })),
    ],
  };
}

const bySync = (source, { sync_id }) =>
  [' by ', h('a', { href: syncLink({ ...source, sync_id }) }, h('code', null, sync_id.slice(0, 13)))];

/** Says why a record is there or gone in a source, and who said so. */
function why(one) {
  const sync = (at) => at && [time(at.committed_at), bySync(one, at)];
  const fact = (name, what) => what && h('div', { key: name }, h('dt', null, name), h('dd', null, what));
  const words = {
    live: 'The last sync that could tell saw it.',
    kept: 'The last sync could not look everywhere for it, so it stays.',
    held: `It was not found, and its delete waits for a word: ${one.reason}`,
    pinned: 'It was not found, and its delete was rejected: it stays until it is seen again.',
    gone: 'It was deleted.',
  };
  return h('div', { class: 'why', key: sourceKey(one) },
    h('p', null, state(one.state), source(one), h('span', null, words[one.state] ?? ''),
      one.changeset != null && h('a', { href: link(['held', String(one.changeset)]) }, `Changeset ${one.changeset}`)),
    h('dl', null,
      fact('Last seen', sync(one.confirmed)), fact('Created', sync(one.created)), fact('Changed', sync(one.changed)), fact('Deleted', sync(one.deleted)),
      fact('Claimed by', one.claims.length > 0 && one.claims.map((claim) =>
        h('span', { class: 'claim', key: `${claim.step_id} ${claim.scope}`, title: claim.missed_because ?? undefined },
          claim.missed && icon('partial', 'partial'), claim.step_id, claim.scope && ` (${claim.scope})`)))));
}

function properties(records) {
  const names = [...new Set(records.flatMap((one) => Object.keys(one.properties ?? {})))].sort();
  if (names.length === 0) return quiet('It has none.');
  const columns = records.map((one) => `${one.connector_id} ${one.account_id}`);
  return table('Properties', ['Property', ...columns], names.map((name) =>
    h('tr', { key: name }, head(name), records.map((one) => td(value(one.properties?.[name]))))), 'rows properties');
}

function relationships(items) {
  const end = (of) => td(h('a', { href: entityLink(of.id) }, of.display_name ?? of.key), ' ', h('small', { class: 'faint' }, of.type));
  return h('details', null, h('summary', null, 'As a table'),
    table('Relationships', ['From', 'Verb', 'To', 'Source'], items.map((one) =>
      h('tr', { key: one.id + sourceKey(one) },
        end(one.from), td(one.type), end(one.to), td(source(one))))));
}

function timeline(events) {
  if (events.length === 0) return quiet('No change of it is on record.');
  const names = { created: 'plus', updated: 'changed', deleted: 'minus' };
  return h('ol', { class: 'timeline' }, events.map((event, n) =>
    h('li', { key: n, class: names[event.action] ?? '' },
      h('p', null, h('b', null, event.action), ' ', event.sync && time(event.sync.committed_at), ' in ', source(event),
        event.sync && bySync(event, event.sync),
        event.changeset != null && [', ', h('a', { href: link(['held', String(event.changeset)]) }, `changeset ${event.changeset} approved`)],
        event.claims?.length > 0 && `, looked for by ${event.claims.map(({ step_id }) => step_id).join(', ')}`),
      event.changes?.length > 0 && table('Changes', [], event.changes.map((change) =>
        h('tr', { key: change.name }, head(change.name), h('td', { class: 'minus' }, value(change.before)), h('td', { class: 'plus' }, value(change.after)))), ''))));
}
