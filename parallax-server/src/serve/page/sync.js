// One sync: its steps, what it changed, what went wrong, and its journal.

import { get } from './api.js';
import { graph, progress, state, waterfall } from './chart.js';
import { h, icon } from './dom.js';
import { clock, counts, duration, id, link, now, number, plural, source, time } from './format.js';
import { act, cell, empty, head as rowHead, Loaded, loading, problem, quiet, right, section, syncNow, table, td } from './parts.js';

const COUNTS = { created: 'plus', updated: 'changed', unchanged: '', deleted: 'minus', kept: 'partial', held: 'held', rejected: 'failed', duplicates: '' };
/** How much of a journal is shown at first. */
const LINES = 200;

/** What to do about errors, by their kind. */
const HINTS = {
  unauthorized: 'Look at the credentials of this source: they are wrong, expired, or allow too little.',
  rate_limited: 'The system asked for a pause more often than the step is tried. Sync less often, or raise the limit there.',
  timed_out: 'An attempt took longer than the step may. Look whether the system hangs, or give the step more time.',
  retryable: 'The system did not answer as it should, in every attempt. What was stored of it stays.',
  fatal: 'Trying again will not help until something changes. What was stored of it stays.',
  emit: 'The step emitted a record that breaks a rule. This is a defect of the connector.',
  panicked: 'This is a defect of the connector. The log of the daemon has the place.',
  dependency_failed: 'A step that comes before it failed: look at that one first.',
  cancelled: 'Somebody cancelled the sync, or the daemon was stopped. Nothing was changed.',
};

export function syncView(app, [sync_id], parameters) {
  const { connector_id, account_id } = parameters;
  const { live } = app;
  const named = () => ({ connector_id, account_id, sync_id });
  const detail = new Loaded(app, (signal) => get(['syncs', sync_id], { connector_id, account_id }, { signal }).then(over, missing));
  const journal = new Loaded(app, () => live.load(named()).then((run) => ({ run })).catch(missing));
  let lines = LINES;
  const known = () => live.find(named()) ?? journal.value?.run;
  // What it changed is known once it has ended.
  const ended = () => (known() && !known().isOver ? null : detail.reload());
  journal.reload().then(ended);
  return {
    ticks: true,
    title: `Sync of ${connector_id ?? sync_id}`,
    refresh: () => detail.value?.sync_id || ended(),
    render() {
      const run = known();
      const sync = detail.value?.sync_id ? detail.value : null;
      if (!run?.seq && !sync) {
        if (detail.isLoading || journal.isLoading) return loading();
        const error = detail.problem ?? journal.problem;
        if (error) return problem(error, () => journal.reload().then(ended));
        const source = [...(live.sources?.values() ?? [])].find((one) => one.running_sync_id === sync_id);
        if (source?.activity === 'waiting') return empty('waiting', 'In the queue', 'It starts as soon as fewer syncs run. ', cancel(app, sync_id));
        return empty('search', 'No such sync', 'It is not on record, or not any more. ', h('a', { href: link(['syncs']) }, 'All syncs'));
      }
      const shown = run?.seq ? run : null;
      return [
        head(app, shown, sync, named()),
        shown ? drawn(shown) : steps(sync),
        errors(shown, sync),
        changes(shown, sync),
        shown && log(shown, lines, () => {
          lines = Infinity;
          app.update();
        }),
      ];
    },
  };
}

/** Of a sync that has not ended, the journal tells more. */
function over(sync) {
  return sync.committed_at ? sync : {};
}

/** A sync that has not begun has no journal, and an old one has none any more: that is no error. */
function missing(error) {
  if (error.status === 404) return {};
  throw error;
}

function head(app, run, sync, named) {
  const outcome = run?.state ?? sync.outcome;
  const one = { ...named, ...(sync ?? {}) };
  const from = run ? run.startedAt : Date.parse(sync.started_at);
  const took = run ? (run.endedAt ?? now()) - run.startedAt : sync.duration_ms;
  const fact = (name, value) => h('div', null, h('dt', null, name), h('dd', null, value));
  const { entities, relationships } = run?.totals ?? {};
  return h('div', { class: 'head panel' },
    h('header', null, h('h2', null, source(one)), state(outcome), run && !run.isOver && progress(run),
      h('span', { class: 'push' }),
      run && !run.isOver
        ? cancel(app, one.sync_id)
        : h('button', { onclick: () => syncNow(app, one) }, 'Sync now')),
    h('dl', null,
      fact('Started', time(new Date(from).toISOString())),
      fact('Took', h('span', { class: 'tick' }, duration(took))),
      run && fact('Emitted', counts(entities, relationships)),
      fact('Connector', run?.version || sync?.connector_version || '–'),
      fact('Sync', id(one.sync_id, 40))),
    run?.replayed && h('p', { class: 'note' }, 'All of it had been committed before: nothing was changed.'),
    run?.held.map((held) => h('p', { key: held.seq, class: 'note held' }, icon('held', 'held'),
      h('span', null, `${counts(held.entities, held.relationships)} were not found, and are held: ${held.reason}. `,
        h('a', { href: link(['held', String(held.changeset)]) }, 'Decide')))));
}

function cancel(app, sync_id) {
  const asked = () => 'The sync is being cancelled: nothing of it is committed.';
  return h('button', { onclick: () => act(app, 'POST', ['syncs', sync_id, 'cancel'], asked) }, 'Cancel');
}

function drawn(run) {
  const path = run.criticalPath();
  const selected = [...run.steps.values()].filter((step) => step.state !== 'unselected');
  const left = run.steps.size - selected.length;
  return [
    section('Steps in time', {
      extra: path.length > 1 && h('span', { class: 'faint critical-path' }, 'Critical path: ', path.join(' → ')),
    }, waterfall(run), left > 0 && quiet(`${plural(left, 'step was', 'steps were')} not selected.`)),
    section('Step graph', null, graph(selected)),
  ];
}

/** Describes the steps of a sync whose journal is not there any more. */
function steps(sync) {
  if (sync.steps.length === 0) return null;
  return section('Steps', { extra: h('span', { class: 'faint' }, 'Its journal is not kept any more.') },
    table('Steps', ['Step', 'State', '#Entities', '#Relationships', '#Took', 'Reason'], sync.steps.map((step) =>
      h('tr', { key: step.step_id }, rowHead(step.step_id),
        td(state(step.status === 'completed' ? 'done' : step.status)),
        right(number(step.entities)), right(number(step.relationships)),
        right(duration(step.duration_ms)), h('td', { class: 'name' }, step.reason)))));
}

/** Describes what went wrong, each error once with the steps that it stopped. */
function errors(run, sync) {
  const groups = new Map();
  const add = (kind, message, step) => {
    const key = `${kind}\n${message}`;
    if (!groups.has(key)) groups.set(key, { kind, message, steps: [] });
    if (step) groups.get(key).steps.push(step);
  };
  if (run) {
    if (run.error) add(run.error.kind, run.error.message);
    for (const step of run.steps.values()) {
      if (step.error) add(step.error.kind, step.error.message, step.id);
      if (step.state === 'incomplete') add('incomplete', step.reason ?? 'not all was seen', step.id);
    }
  } else {
    for (const step of sync.steps) if (step.reason) add(step.status, step.reason, step.step_id);
  }
  const rejected = run ? [...run.steps.values()].flatMap((step) => step.rejected.map((one) => ({ ...one, step: step.id }))) : [];
  if (groups.size + rejected.length === 0) return null;
  return section('What went wrong', null, h('ul', { class: 'errors' },
    [...groups.values()].map(({ kind, message, steps }) =>
      h('li', { key: `${kind} ${message}` },
        icon(kind === 'incomplete' ? 'partial' : 'failed', kind === 'incomplete' ? 'partial' : 'failed'),
        h('div', null, h('strong', null, message), h('code', { class: 'kind' }, kind),
          steps.length > 0 && h('p', { class: 'faint' }, `in ${steps.slice(0, 12).join(', ')}${steps.length > 12 ? ` and ${steps.length - 12} more` : ''}`),
          (HINTS[kind] || kind === 'incomplete') && h('p', null, HINTS[kind] ?? 'The step said that it did not see everything, so nothing that it missed was deleted.')))),
    rejected.map(({ rule, count, samples, step }) =>
      h('li', { key: `${step} ${rule}` }, icon('partial', 'partial'),
        h('div', null, h('strong', null, `${plural(count, 'record was', 'records were')} rejected`), h('code', { class: 'kind' }, rule),
          h('p', { class: 'faint' }, `in ${step}`), h('ul', null, samples.map((sample, n) => h('li', { key: n }, sample))))))));
}

function changes(run, sync) {
  const stats = sync ?? run?.stats;
  if (!stats) return null;
  const row = (title, kind) => h('tr', { key: kind }, rowHead(title),
    Object.entries(COUNTS).map(([name, tone]) => cell(stats[`${kind}_${name}`], tone)));
  return section('What it changed', null,
    table('Counts', ['Records', ...Object.keys(COUNTS).map((name) => `#${name}`)], [row('Entities', 'entities'), row('Relationships', 'relationships')]),
    sync?.changes?.length > 0 && table('Updated and deleted by type', ['By type', '#updated', '#deleted'],
      sync.changes.map((one) => h('tr', { key: `${one.kind} ${one.type}` },
        rowHead(one.type), cell(one.updated, 'changed'), cell(one.deleted, 'minus')))));
}

/** Says what an entry tells, in a line. */
function sentence(entry) {
  const { step_id, error } = entry;
  switch (entry.kind) {
    case 'started': return `Sync started: ${plural(entry.steps.length, 'step', 'steps')}`;
    case 'step_started': return 'Step started';
    case 'step_restarted': return `Attempt ${entry.attempt} started`;
    case 'step_retrying': return `Attempt ${entry.attempt} failed, next in ${duration(entry.pause_ms)}: ${error.message}`;
    case 'step_stalled': return `Silent for ${duration(entry.idle_ms)}${entry.blocking ? ', and blocks its thread' : ''}`;
    case 'records_rejected': return `${plural(entry.count, 'record', 'records')} rejected: ${entry.rule}`;
    case 'step_completed': return `Step ${entry.status}: ${counts(entry.entities, entry.relationships)} in ${duration(entry.duration_ms)}${entry.reason ? ` – ${entry.reason}` : ''}`;
    case 'step_failed': return `Step ${entry.status}: ${error.message}`;
    case 'step_skipped': return `Step skipped: ${error.message}`;
    case 'completed': return `Every step has ended: ${counts(entry.entities, entry.relationships)} in ${duration(entry.duration_ms)}`;
    case 'cancelled': return 'Sync cancelled: nothing of it is committed';
    case 'failed': return `Sync could not start: ${error.message}`;
    case 'committed': return entry.replayed ? 'Committed before: nothing was changed' : `Committed: ${entry.outcome}`;
    case 'deletes_held': return `Changeset ${entry.changeset}: ${counts(entry.entities, entry.relationships)} held`;
    case 'deletes_approved': return `Changeset ${entry.changeset} approved: ${counts(entry.entities, entry.relationships)} deleted`;
    case 'deletes_rejected': return `Changeset ${entry.changeset} rejected: all of it is kept`;
    case 'commit_failed': return `Commit failed: ${error.message}`;
    default: return step_id ? `${entry.kind} (${step_id})` : entry.kind;
  }
}

const TONES = { step_failed: 'failed', failed: 'failed', commit_failed: 'failed', step_retrying: 'retrying', step_stalled: 'stalled',
  step_skipped: 'skipped', records_rejected: 'partial', deletes_held: 'held', step_completed: 'done', committed: 'done', completed: 'done' };

function log(run, lines, more) {
  const entries = run.log.slice(-lines);
  const before = run.log.length - entries.length;
  return section('Journal', { extra: h('span', { class: 'faint' }, `${number(run.seq)} with progress`) },
    before > 0 && h('button', { class: 'wide', onclick: more }, `Show ${number(before)} earlier`),
    run.unlogged > 0 && quiet(`${number(run.unlogged)} older ones are in the API only.`),
    h('div', { class: 'scroll log', tabindex: '0', role: 'group', 'aria-label': 'Journal' }, h('table', null,
      h('caption', { class: 'unseen' }, 'Entries of the journal'),
      h('thead', { class: 'unseen' }, h('tr', null, ['Time', 'Step', 'What'].map((title) => h('th', { scope: 'col' }, title)))),
      h('tbody', null, entries.map((entry) => h('tr', { key: entry.seq },
        h('td', { title: entry.at }, clock(entry.at)), td(entry.step_id ?? ''),
        h('td', { class: TONES[entry.kind] ?? '' }, sentence(entry))))))));
}
