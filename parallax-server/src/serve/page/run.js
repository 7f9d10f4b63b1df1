// One sync, as its journal tells it.

/** How many entries of a journal are kept to be shown. */
const LOG = 2_000;

export const runKey = ({ connector_id, account_id, sync_id }) =>
  [connector_id, account_id, sync_id].join('\n');

const ENDS = new Set(['done', 'incomplete', 'failed', 'cancelled', 'skipped', 'unselected']);
export const hasEnded = (step) => ENDS.has(step.state);

export class Run {
  constructor({ connector_id, account_id, sync_id }) {
    Object.assign(this, { connector_id, account_id, sync_id });
    this.key = runKey(this);
    /** The last entry that was taken. */
    this.seq = 0;
    this.steps = new Map();
    /** `running`, `committing`, then an outcome. */
    this.state = 'running';
    this.startedAt = null;
    this.endedAt = null;
    this.stats = null;
    this.error = null;
    this.held = [];
    this.log = [];
    this.unlogged = 0;
  }

  /** Takes the entry that follows the last one. Others were taken, or come again. */
  apply(entry) {
    if (entry.seq !== this.seq + 1) return false;
    this.seq = entry.seq;
    const at = Date.parse(entry.at);
    this.heardAt = at;
    this.startedAt ??= at;
    const handle = HANDLERS[entry.kind];
    if (handle) handle(this, entry, at);
    // Progress is seen in the steps; a line for each would hide the rest.
    if (entry.kind !== 'step_progress') this.log.push(entry);
    if (this.log.length > LOG) {
      this.log.shift();
      this.unlogged += 1;
    }
    return true;
  }

  step(id) {
    let step = this.steps.get(id);
    if (!step) {
      step = { id, title: id, depends_on: [], state: 'waiting', attempts: [], rejected: [] };
      Object.assign(step, { entities: 0, relationships: 0, began: null, ended: null });
      this.steps.set(id, step);
    }
    return step;
  }

  get totals() {
    const sum = { entities: 0, relationships: 0, ended: 0, selected: 0 };
    for (const step of this.steps.values()) {
      if (step.state === 'unselected') continue;
      sum.entities += step.entities;
      sum.relationships += step.relationships;
      sum.selected += 1;
      if (hasEnded(step)) sum.ended += 1;
    }
    return sum;
  }

  get isOver() {
    return this.state !== 'running' && this.state !== 'committing';
  }

  end(state, at) {
    this.state = state;
    this.endedAt = at;
  }

  /**
   * Returns the steps that decided how long the run took: from the last to end, back over what each
   * waited for longest.
   */
  criticalPath() {
    const path = [];
    const latest = (steps) =>
      steps.reduce((last, step) => (step?.ended > (last?.ended ?? 0) ? step : last), null);
    let step = this.isOver || this.state === 'committing' ? latest([...this.steps.values()]) : null;
    while (step && !path.includes(step)) {
      path.unshift(step);
      step = latest(step.depends_on.map((id) => this.steps.get(id)));
    }
    return path.map(({ id }) => id);
  }
}

function finish(step, state, at) {
  // A step that was never begun takes no time.
  step.began ??= at;
  step.ended = at;
  step.state = state;
  const attempt = step.attempts.at(-1);
  if (attempt && attempt.to == null) Object.assign(attempt, { to: at, state });
}

/** Tells that a step does something, whatever it was at. */
function resume(step, at) {
  if (step.state === 'retrying' || step.state === 'waiting') {
    step.attempts.push({ from: at, to: null, state: 'running' });
  }
  step.began ??= at;
  step.state = 'running';
}

const HANDLERS = {
  started(run, { steps, connector_version }, at) {
    run.startedAt = at;
    run.version = connector_version;
    for (const { step_id, title, depends_on, selected } of steps) {
      const state = selected ? 'waiting' : 'unselected';
      Object.assign(run.step(step_id), { title: title || step_id, depends_on, state });
    }
  },
  step_started(run, { step_id }, at) {
    resume(run.step(step_id), at);
  },
  step_progress(run, { step_id, entities, relationships }, at) {
    const step = run.step(step_id);
    resume(step, at);
    Object.assign(step, { entities, relationships });
  },
  step_retrying(run, { step_id, attempt, error, pause_ms }, at) {
    const step = run.step(step_id);
    Object.assign(step, { state: 'retrying', error, resumesAt: at + pause_ms });
    Object.assign(step, { entities: 0, relationships: 0, retries: attempt });
    const last = step.attempts.at(-1);
    if (last) Object.assign(last, { to: at, state: 'retrying', error });
  },
  step_restarted(run, { step_id }, at) {
    resume(run.step(step_id), at);
  },
  step_stalled(run, { step_id, idle_ms, blocking }, at) {
    const step = run.step(step_id);
    Object.assign(step, { state: 'stalled', idleSince: at - idle_ms, blocking });
  },
  records_rejected(run, { step_id, rule, count, samples }) {
    run.step(step_id).rejected.push({ rule, count, samples });
  },
  step_completed(run, { step_id, status, reason, entities, relationships }, at) {
    const step = run.step(step_id);
    Object.assign(step, { entities, relationships, reason });
    // What the attempts before it failed of is over.
    step.error = null;
    finish(step, status === 'incomplete' ? 'incomplete' : 'done', at);
  },
  step_failed(run, { step_id, status, error }, at) {
    const step = run.step(step_id);
    step.error = error;
    finish(step, status === 'cancelled' ? 'cancelled' : 'failed', at);
  },
  step_skipped(run, { step_id, error }, at) {
    const step = run.step(step_id);
    step.error = error;
    finish(step, 'skipped', at);
  },
  completed(run, _entry, at) {
    run.state = 'committing';
    run.ranUntil = at;
  },
  cancelled(run, _entry, at) {
    for (const step of run.steps.values()) if (!hasEnded(step)) finish(step, 'cancelled', at);
    run.end('cancelled', at);
  },
  failed(run, { error }, at) {
    run.error = error;
    run.end('failed', at);
  },
  committed(run, { outcome, stats, replayed }, at) {
    Object.assign(run, { stats, replayed });
    run.end(outcome, at);
  },
  commit_failed(run, { error }, at) {
    run.error = error;
    run.end('commit_failed', at);
  },
  deletes_held(run, entry) {
    run.held.push(entry);
  },
};
