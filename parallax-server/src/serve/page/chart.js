// What is drawn: steps in time, their graph, what changed, and what hangs together.

import { h, icon } from './dom.js';
import { duration, now, number, plural } from './format.js';
import { hasEnded } from './run.js';

/** What each state is called, and the icon beside the word: colour is never alone. */
export const STATES = {
  waiting: ['waiting', 'waiting'],
  running: ['running', 'running'],
  retrying: ['retrying', 'retrying'],
  stalled: ['stalled', 'stalled'],
  done: ['done', 'ok'],
  incomplete: ['incomplete', 'partial'],
  failed: ['failed', 'failed'],
  cancelled: ['cancelled', 'skipped'],
  skipped: ['skipped', 'skipped'],
  unselected: ['not selected', 'skipped'],
  committing: ['committing', 'running'],
  committed: ['committed', 'ok'],
  partial: ['partial', 'partial'],
  approved: ['approved', 'ok'],
  rejected: ['rejected', 'held'],
  released: ['released', 'ok'],
  open: ['held', 'held'],
  commit_failed: ['commit failed', 'failed'],
  lost: ['lost', 'failed'],
  live: ['live', 'ok'],
  kept: ['kept', 'held'],
  held: ['held', 'held'],
  pinned: ['kept', 'held'],
  gone: ['gone', 'failed'],
};

/** Describes a state by its word and icon. */
export function state(name, word) {
  const [usual, picture] = STATES[name] ?? [name, 'partial'];
  return h('span', { class: `state ${name}` }, icon(picture), word ?? usual);
}

const percent = (part, whole) => `${((100 * part) / whole).toFixed(3)}%`;

/** Says in words what a step is at. */
function word(step) {
  if (step.state === 'retrying') return `retrying in ${duration(Math.max(step.resumesAt - now(), 0))}`;
  if (step.state === 'running' && step.retries) return `running, attempt ${step.retries + 1}`;
  if (step.state === 'stalled') return `silent for ${duration(now() - step.idleSince)}`;
  return undefined;
}

/** Describes the steps of a sync in time, in the order of their declaration. */
export function waterfall(run) {
  const from = run.startedAt;
  const until = run.ranUntil ?? run.endedAt ?? now();
  const whole = Math.max(until - from, 1);
  const critical = new Set(run.criticalPath());
  const row = (step) => {
    const took = step.began == null || step.state === 'skipped' ? null : (step.ended ?? Math.min(now(), until)) - step.began;
    const reason = step.error?.message ?? step.reason;
    const isCritical = critical.has(step.id);
    return h(
      'tr',
      { key: step.id, class: `step ${step.state}${isCritical ? ' critical' : ''}`, 'data-step': step.id },
      h('th', { scope: 'row', title: step.title }, h('span', null, step.title),
        isCritical && h('span', { class: 'mark', title: 'on the critical path' }, 'critical')),
      h('td', { class: 'what', title: reason }, state(step.state, word(step))),
      h('td', { class: 'lane' }, h('div', { class: 'track' }, bars(step, from, whole, until))),
      h('td', { class: 'n' }, number(step.entities)),
      h('td', { class: 'n' }, number(step.relationships)),
      h('td', { class: 'n took' }, took == null ? '–' : duration(took)),
    );
  };
  const steps = [...run.steps.values()].filter((step) => step.state !== 'unselected');
  return h(
    'div',
    { class: 'scroll' },
    h(
      'table',
      { class: 'waterfall' },
      h('caption', { class: 'unseen' }, 'Steps in time'),
      h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'Step'), h('th', { scope: 'col' }, 'State'),
        h('th', { scope: 'col', class: 'lane' }, h('div', { class: 'axis', 'aria-hidden': 'true' },
          h('span', null, '0'), h('span', null, duration(whole / 2)), h('span', null, duration(whole))),
        h('span', { class: 'unseen' }, 'Time')),
        h('th', { scope: 'col', class: 'n' }, 'Entities'), h('th', { scope: 'col', class: 'n' }, 'Relationships'),
        h('th', { scope: 'col', class: 'n' }, 'Took'))),
      h('tbody', null, steps.map(row)),
    ),
  );
}

function bars(step, from, whole, until) {
  const bar = (key, kind, begin, end, title) =>
    h('i', {
      key, title, class: `bar ${kind}`,
      style: { left: percent(begin - from, whole), width: percent(Math.max(end - begin, 0), whole) },
    });
  const drawn = [];
  step.attempts.forEach((attempt, n) => {
    const end = attempt.to ?? Math.min(now(), until);
    const kind = attempt.to == null ? step.state : attempt.state;
    const title = `attempt ${n + 1}, ${duration(end - attempt.from)}${attempt.error ? `: ${attempt.error.message}` : ''}`;
    drawn.push(bar(`a${n}`, kind, attempt.from, end, title));
    const next = step.attempts[n + 1];
    const resumes = next?.from ?? (step.state === 'retrying' ? Math.min(now(), until) : null);
    if (attempt.to != null && resumes != null) drawn.push(bar(`p${n}`, 'pause', attempt.to, resumes));
  });
  return drawn;
}

/** Describes how many steps of a sync have ended, by their states. */
export function progress(run) {
  const { ended, selected } = run.totals;
  const steps = [...run.steps.values()].filter((step) => step.state !== 'unselected');
  return h(
    'div',
    { class: 'steps', role: 'img', 'aria-label': `${ended} of ${plural(selected, 'step', 'steps')} ended` },
    steps.length <= 80 && steps.map((step) => h('i', { key: step.id, class: `bar ${step.state}` })),
  );
}

const CARD = { width: 172, height: 40, gapX: 44, gapY: 14 };

/** Describes the graph of a sync's steps: each behind all that it depends on. */
export function graph(steps) {
  const byId = new Map(steps.map((step) => [step.id, step]));
  const layerOf = new Map();
  const layer = (step, above = new Set()) => {
    if (layerOf.has(step.id)) return layerOf.get(step.id);
    if (above.has(step.id)) return 0;
    above.add(step.id);
    const before = step.depends_on.map((id) => byId.get(id)).filter(Boolean);
    const place = before.length ? 1 + Math.max(...before.map((one) => layer(one, above))) : 0;
    layerOf.set(step.id, place);
    return place;
  };
  const layers = [];
  for (const step of steps) (layers[layer(step)] ??= []).push(step);
  // Each step near those that it depends on, so that few lines cross.
  const placeOf = new Map();
  for (const members of layers) {
    const wish = (step) => {
      const before = step.depends_on.map((id) => placeOf.get(id)).filter((place) => place != null);
      return before.length ? before.reduce((a, b) => a + b, 0) / before.length : Infinity;
    };
    const wishes = new Map(members.map((step) => [step, wish(step)]));
    members.sort((a, b) => (wishes.get(a) === wishes.get(b) ? 0 : wishes.get(a) - wishes.get(b)));
    members.forEach((step, n) => placeOf.set(step.id, n));
  }
  const rows = Math.max(1, ...layers.map((members) => members.length));
  const x = (step) => 1 + layerOf.get(step.id) * (CARD.width + CARD.gapX);
  const y = (step) => 1 + placeOf.get(step.id) * (CARD.height + CARD.gapY);
  const width = 2 + layers.length * (CARD.width + CARD.gapX) - CARD.gapX;
  const height = 2 + rows * (CARD.height + CARD.gapY) - CARD.gapY;
  const edges = steps.flatMap((step) =>
    step.depends_on.filter((id) => byId.has(id)).map((id) => {
      const [x1, y1] = [x(byId.get(id)) + CARD.width, y(byId.get(id)) + CARD.height / 2];
      const [x2, y2] = [x(step), y(step) + CARD.height / 2];
      const bend = Math.min(CARD.gapX, (x2 - x1) / 2 + 8);
      const d = `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
      return h('path', { key: `${id} ${step.id}`, class: `edge ${byId.get(id).state === 'done' ? 'past' : ''}`, d });
    }),
  );
  const card = (step) => {
    const [usual, picture] = STATES[step.state] ?? ['', 'waiting'];
    return h(
      'g',
      { key: step.id, class: `card ${step.state}`, transform: `translate(${x(step)} ${y(step)})` },
      h('title', null, `${step.title} (${step.id}): ${usual}`),
      h('rect', { width: CARD.width, height: CARD.height, rx: 8 }),
      h('g', { transform: 'translate(11 12)', class: `icon ${step.state}` }, icon(picture).children),
      h('text', { x: 36, y: 17 }, cut(step.title, 18)),
      h('text', { x: 36, y: 32, class: 'faint' }, hasEnded(step) && step.began != null && step.ended > step.began
        ? `${usual} in ${duration(step.ended - step.began)}` : usual),
    );
  };
  const words = steps.map((step) => step.depends_on.length ? `${step.id} after ${step.depends_on.join(', ')}` : step.id);
  return h(
    'div',
    { class: 'scroll graph', tabindex: '0', role: 'group', 'aria-label': 'Step graph' },
    h('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': words.join('; ') },
      edges, steps.map(card)),
  );
}

const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

const SPARK = { width: 120, height: 28, places: 20 };

/** Describes what the last syncs of a source changed: up what came or changed, down what went. */
export function sparkline(recent) {
  const syncs = recent.slice(0, SPARK.places).reverse();
  const most = Math.max(1, ...syncs.map(({ created, updated, deleted }) => Math.max(created + updated, deleted)));
  const half = SPARK.height / 2;
  // By the square root, so that a small change beside a first sync can be seen.
  const size = (n) => (n ? Math.max(1.5, Math.sqrt(n / most) * (half - 2)) : 0);
  const step = SPARK.width / SPARK.places;
  const first = SPARK.width - syncs.length * step;
  // One element for each kind: a thousand bars are slow to draw.
  const marks = { up: '', down: '', miss: '' };
  syncs.forEach((sync, n) => {
    const left = first + n * step;
    const bar = (height) => `M${left + 1} ${half}v${height}h${step - 2}v${-height}z`;
    if (sync.outcome === 'failed') marks.miss += `M${left + step / 2 - 2} ${half - 2}l4 4m0-4l-4 4`;
    else {
      marks.up += bar(-size(sync.created + sync.updated));
      marks.down += bar(size(sync.deleted));
    }
  });
  const failed = syncs.filter(({ outcome }) => outcome === 'failed').length;
  const changed = syncs.reduce((sum, { created, updated, deleted }) => sum + created + updated + deleted, 0);
  const label = `last ${plural(syncs.length, 'sync', 'syncs')}: ${plural(changed, 'change', 'changes')}, ${failed} failed`;
  return h(
    'svg',
    { class: 'spark', width: SPARK.width, height: SPARK.height, viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, role: 'img', 'aria-label': label },
    h('title', null, label),
    h('path', { class: 'base', d: `M0 ${half}H${SPARK.width}` }),
    ['up', 'down', 'miss'].map((kind) => h('path', { class: kind, d: marks[kind] })),
  );
}

const NEAR = { width: 900, box: 246, row: 34, most: 10 };

/** Describes an entity between those that point to it and those that it points to. */
export function neighbours(entity, relationships, href) {
  const side = (there) => {
    const groups = new Map();
    for (const one of relationships) {
      if (one[there === 'from' ? 'to' : 'from'].id !== entity.id) continue;
      if (!groups.has(one.type)) groups.set(one.type, []);
      groups.get(one.type).push(one[there]);
    }
    // A few of each verb, so that a frequent one does not hide the others.
    const each = Math.max(1, Math.floor(NEAR.most / Math.max(1, groups.size)));
    return [...groups].flatMap(([verb, ends]) => {
      const shown = ends.slice(0, ends.length === each + 1 ? each + 1 : each);
      const rows = shown.map((end, n) => ({ verb: n === 0 ? verb : null, end, group: verb }));
      if (ends.length > shown.length) rows.push({ more: ends.length - shown.length, group: verb });
      return rows;
    });
  };
  const [left, right] = [side('from'), side('to')];
  const rows = Math.max(left.length, right.length, 2);
  const height = rows * NEAR.row + 8;
  const mid = height / 2;
  const centre = { x: NEAR.width / 2 - 88, width: 176 };
  const draw = (list, isLeft) => {
    const top = mid - (list.length * NEAR.row) / 2;
    return list.map((one, n) => {
      const y = top + n * NEAR.row + NEAR.row / 2;
      const x = isLeft ? 1 : NEAR.width - NEAR.box - 1;
      const inner = isLeft ? x + NEAR.box : x;
      const edge = isLeft ? centre.x : centre.x + centre.width;
      const bend = (edge - inner) / 2;
      const line = h('path', { class: 'edge', d: `M${inner} ${y}C${inner + bend} ${y} ${edge - bend} ${mid} ${edge} ${mid}` });
      if (one.more) {
        return h('g', { key: `more ${one.group}` }, h('text', { class: 'faint', x: x + 10, y: y + 4 }, `and ${number(one.more)} more ${one.group}`));
      }
      return h(
        'g',
        { key: `${one.group} ${one.end.id} ${n}` },
        line,
        one.verb && h('text', { class: 'verb', x: inner + bend * 0.42, y: y - 6, 'text-anchor': isLeft ? 'start' : 'end' }, cut(one.verb, 14)),
        h('a', { href: href(one.end.id) },
          h('title', null, `${one.end.type}: ${one.end.key}`),
          h('rect', { x, y: y - 14, width: NEAR.box, height: 28, rx: 7 }),
          h('text', { x: x + 10, y: y + 4 }, cut(one.end.display_name ?? one.end.key, 16)),
          h('text', { class: 'faint', x: x + NEAR.box - 10, y: y + 4, 'text-anchor': 'end' }, cut(one.end.type, 13))),
      );
    });
  };
  return h(
    'div',
    { class: 'scroll near' },
    h(
      'svg',
      { viewBox: `0 0 ${NEAR.width} ${height}`, width: NEAR.width, height, role: 'group', 'aria-label': 'Neighbours' },
      draw(left, true),
      draw(right, false),
      h('g', { class: 'centre', key: 'centre' },
        h('rect', { x: centre.x, y: mid - 24, width: centre.width, height: 48, rx: 10 }),
        h('text', { x: NEAR.width / 2, y: mid - 3, 'text-anchor': 'middle' }, cut(entity.display_name ?? entity.key, 22)),
        h('text', { class: 'faint', x: NEAR.width / 2, y: mid + 14, 'text-anchor': 'middle' }, cut(entity.type, 24))),
    ),
  );
}
