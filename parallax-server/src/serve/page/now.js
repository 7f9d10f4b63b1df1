// What runs, what comes next, what just ended.

import { progress, state, waterfall } from './chart.js';
import { h, icon } from './dom.js';
import { both, duration, isFailing, link, now, number, plural, short, source, sourceKey, syncLink, time } from './format.js';
import { empty, head, loading, quiet, right, section, table, td, trouble } from './parts.js';
import { runKey } from './run.js';

/** How many sources are listed as due. */
const DUE = 8;
/** More syncs than this are shown in short. */
const WHOLE = 4;

export function nowView(app) {
  const { live } = app;
  return {
    title: 'Now',
    ticks: true,
    render() {
      if (!live.sources) return trouble(live) ?? loading();
      const sources = [...live.sources.values()];
      if (sources.length === 0) {
        return empty('waiting', 'No sources yet',
          'Name a connector in parallax.toml and start parallax serve again. Its first sync appears here.');
      }
      const running = live.running();
      const waiting = sources.filter(({ activity }) => activity === 'waiting');
      return [
        trouble(live),
        tiles(sources, live),
        section('Running', { class: 'bare', 'aria-live': 'off' },
          running.length === 0
            ? idle(sources)
            : running.map((run, n) => card(run, n < WHOLE))),
        h('div', { class: 'columns' },
          section('Next due', null, due(sources, waiting)),
          section('Just ended', { extra: h('a', { href: link(['syncs']) }, 'All syncs') }, ended(live.ended))),
      ];
    },
  };
}

function tiles(sources, live) {
  const sum = (field) => sources.reduce((total, source) => total + source[field], 0);
  const failing = sources.filter(isFailing).length;
  const [running, waiting] = ['running', 'waiting'].map((kind) => sources.filter(({ activity }) => activity === kind).length);
  const open = live.changesets.length;
  const tile = (name, big, text, href, kind = '') =>
    h('a', { key: name, class: `tile ${kind}`, href }, h('span', { class: 'name' }, name), h('b', null, big), h('small', null, text));
  return h('div', { class: 'tiles' },
    tile('Syncs', number(running), waiting ? `running, ${number(waiting)} waiting` : 'running now', link(['syncs']), running ? 'running' : ''),
    tile('Sources', number(sources.length), failing ? `${number(failing)} failing` : 'none failing',
      link(['sources'], { show: failing ? 'failing' : null }), failing ? 'failed' : 'done'),
    tile('Held', number(open), open ? `${plural(sum('entities_held') + sum('relationships_held'), 'record waits', 'records wait')} for you` : 'nothing to decide',
      link(['held']), open ? 'held' : ''),
    tile('Entities', short(sum('entities')), plural(sources.length, 'source', 'sources'), link(['explore'])),
    tile('Relationships', short(sum('relationships')), 'between them', link(['explore'])));
}

function idle(sources) {
  const next = sources.map(({ next_due_at }) => next_due_at).filter(Boolean).sort()[0];
  return h('div', { class: 'idle' }, icon('waiting'), h('p', null, 'No sync is running. ',
    next ? ['The next is due ', time(next), '.'] : 'None is scheduled: start one under Sources.'));
}

function card(run, isWhole) {
  const { entities, relationships, ended, selected } = run.totals;
  return h(
    'article',
    { key: run.key, class: `run panel ${run.state}`, 'data-sync': run.sync_id },
    h('header', null,
      h('h3', null, h('a', { href: syncLink(run) }, source(run))),
      state(run.state),
      progress(run),
      h('span', { class: 'figures' },
        h('span', null, `${ended}/${selected} steps`),
        h('span', null, `${number(entities)} entities`),
        h('span', null, `${number(relationships)} relationships`),
        h('b', null, duration((run.endedAt ?? now()) - run.startedAt)))),
    isWhole && waterfall(run),
  );
}

function due(sources, waiting) {
  const next = sources.filter(({ next_due_at, activity }) => next_due_at && activity === 'idle');
  next.sort((a, b) => (a.next_due_at < b.next_due_at ? -1 : 1));
  const rows = [
    ...waiting.map((one) => [one, state('waiting', 'in the queue')]),
    ...next.map((one) => [one, time(one.next_due_at)]),
  ];
  if (rows.length === 0) return quiet('Nothing is scheduled.');
  return [
    table('Sources that are due next', [], rows.slice(0, DUE).map(([one, when]) => {
      const { connector_id, account_id } = one;
      return h('tr', { key: sourceKey(one) },
        head(h('a', { href: link(['syncs'], { connector_id, account_id }) }, source(one))),
        h('td', { class: 'faint' }, one.schedule ?? ''),
        right(when));
    }), 'list'),
    rows.length > DUE && quiet(h('a', { href: link(['sources'], { by: 'due' }) }, `and ${number(rows.length - DUE)} more`)),
  ];
}

function ended(syncs) {
  if (syncs.length === 0) return quiet('No sync has ended yet.');
  const part = (n, sign, kind) => n > 0 && h('span', { class: kind }, `${sign}${number(n)}`);
  return table('Syncs that ended last', [], syncs.map((sync) => {
      const [created, updated, deleted, held] = ['created', 'updated', 'deleted', 'held'].map((what) => both(sync, what));
      return h('tr', { key: runKey(sync) },
        head(h('a', { href: syncLink(sync) }, source(sync))),
        td(state(sync.outcome)),
        h('td', { class: 'delta' },
          part(created, '+', 'plus'), part(updated, '~', 'changed'), part(deleted, '−', 'minus'),
          part(held, 'held ', 'held'), created + updated + deleted + held === 0 && h('span', { class: 'faint' }, 'no change')),
        right(time(sync.committed_at)));
    }), 'list');
}
