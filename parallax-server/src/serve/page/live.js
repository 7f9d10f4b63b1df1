// What the page knows of the daemon, kept up to date.

import { get, stream } from './api.js';
import { now, sourceKey } from './format.js';
import { Run, runKey } from './run.js';

/** How often everything is asked for, in case something changed that no entry tells. */
const REFRESH = 15_000;
/** Entries that come close together are answered with one request. */
const GATHER = 120;
/** More changed sources than this are asked for in one list. */
const FEW = 8;
/** How long a sync that has ended stays among those that run. */
const LINGER = 6_000;
/** How many others that have ended are remembered. */
const KEPT = 20;
/** A stream that is silent for so long is taken for lost: the server says something more often. */
const SILENCE = 45_000;
const BACKOFF = { first: 500, most: 10_000 };

/** How many syncs that ended are listed. */
const ENDED = 12;

export class Live {
  /** Calls `changed` when something is to be drawn, and `onBoundary` when a sync began or ended. */
  constructor(changed, onBoundary) {
    Object.assign(this, { changed, onBoundary });
    this.connection = { state: 'connecting', since: Date.now(), retryAt: null, problem: null };
    this.status = null;
    /** By connector and account; null before the first answer. */
    this.sources = null;
    this.changesets = null;
    this.ended = null;
    this.problem = null;
    /** Syncs that run, or that have been looked at. */
    this.runs = new Map();
    this.loading = new Map();
    this.lastId = null;
    this.dirty = new Map();
  }

  start() {
    this.follow();
    setInterval(() => document.hidden || this.refresh(), REFRESH);
    document.addEventListener('visibilitychange', () => document.hidden || this.refresh());
  }

  /** Starts anew, as with another token. */
  restart() {
    this.lastId = null;
    this.abort?.abort();
    this.wake?.();
  }

  /** Reads the feed for as long as the page is open. */
  async follow() {
    for (let pause = BACKOFF.first; ; pause = Math.min(2 * pause, BACKOFF.most)) {
      this.abort = new AbortController();
      let problem = null;
      let quiet = null;
      const alive = () => {
        clearTimeout(quiet);
        quiet = setTimeout(() => this.abort.abort(), SILENCE);
      };
      const open = () => {
        pause = BACKOFF.first;
        alive();
        this.connection = { state: 'live', since: Date.now() };
        this.changed();
      };
      const event = ({ id, name, data }) => {
        if (id !== undefined) this.lastId = id;
        if (name === undefined) this.take(JSON.parse(data));
        else if (name === 'changed') this.touch(JSON.parse(data));
        else if (name === 'reset') this.missed();
      };
      try {
        await stream('events', this.lastId, { open, event, alive }, this.abort.signal);
      } catch (error) {
        problem = error.name === 'AbortError' ? null : error;
      }
      clearTimeout(quiet);
      // Many pages that lost the same daemon shall not come back in the same moment.
      const wait = pause * (0.75 + Math.random() / 2);
      this.connection = { state: 'lost', since: Date.now(), retryAt: Date.now() + wait, problem };
      this.changed();
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, wait);
      });
    }
  }

  /** Reads again what may have gone on unseen. */
  missed() {
    for (const run of this.runs.values()) if (!run.isOver) this.load(run);
    this.refresh().then(this.onBoundary);
  }

  /** Takes an entry of any sync. */
  take(entry) {
    const key = runKey(entry);
    let run = this.runs.get(key);
    // A sync that is run again under its id begins a new journal.
    if ((!run || run.isOver) && entry.seq === 1) {
      run = new Run(entry);
      this.runs.set(key, run);
    }
    if (!run?.apply(entry) && entry.seq > (run?.seq ?? 0)) this.load(entry);
    if (run?.isOver) setTimeout(() => this.changed(), LINGER);
    if (BOUNDARIES.has(entry.kind)) this.touch(entry);
    this.changed();
  }

  /** Reads what is missing of a sync's journal. Returns the sync. */
  load(named) {
    const key = runKey(named);
    const under = this.loading.get(key);
    if (under) return under;
    const run = this.runs.get(key) ?? new Run(named);
    const load = this.read(run).finally(() => this.loading.delete(key));
    this.loading.set(key, load);
    // Who asked for it by name is told; an entry of the feed asks again with the next one.
    load.catch(() => {});
    return load;
  }

  async read(run) {
    const { sync_id, connector_id, account_id } = run;
    for (let more = true; more; ) {
      const parameters = { from: run.seq + 1, connector_id, account_id };
      const { items, first_kept, running } = await get(['syncs', sync_id, 'journal'], parameters);
      // The oldest entries of a long journal may not be kept any more.
      run.seq = Math.max(run.seq, first_kept - 1);
      for (const entry of items) run.apply(entry);
      more = items.length > 0;
      // Its process died: nobody will tell the end.
      if (!more && !running && !run.isOver) run.end('lost', run.heardAt);
    }
    this.runs.set(run.key, run);
    this.changed();
    return run;
  }

  /** Remembers that a source has changed, and asks for it soon. */
  touch(named) {
    this.dirty.set(sourceKey(named), named);
    this.gather ??= setTimeout(() => this.flush(), GATHER);
  }

  async flush() {
    const began = Date.now();
    const named = [...this.dirty.values()];
    this.dirty.clear();
    if (named.length > FEW || !this.sources) await this.refresh();
    else await this.update(named);
    this.forget();
    this.onBoundary();
    // A daemon that is slow to answer is asked less often.
    this.gather = null;
    if (this.dirty.size) this.gather = setTimeout(() => this.flush(), Math.max(GATHER, Date.now() - began));
  }

  /** Asks for some sources anew. */
  async update(named) {
    await this.attempt(() => Promise.all([this.readSources(named), this.readLists()]));
  }

  async readSources(named) {
    const read = async ({ connector_id, account_id }) => {
      const key = sourceKey({ connector_id, account_id });
      try {
        const source = await get(['sources', connector_id, account_id]);
        source.recentOf = source.last_sync_id;
        this.sources.set(key, source);
      } catch (error) {
        if (error.status !== 404) throw error;
        // Somebody had it forgotten.
        this.sources.delete(key);
      }
    };
    await Promise.all(named.map(read));
  }

  /** Asks for the last syncs of sources that are looked at, where there are newer ones than are known. */
  recall(sources) {
    const outdated = sources.filter((one) => one.recentOf !== one.last_sync_id && !one.isAsked);
    if (outdated.length === 0) return;
    for (const one of outdated) one.isAsked = true;
    this.attempt(() => this.readSources(outdated));
  }

  /** Asks for everything anew. */
  async refresh() {
    await this.attempt(async () => {
      const [status, sources] = await Promise.all([get(['status']), all(['sources'], { recent: 0 }), this.readLists()]);
      this.status = status;
      for (const source of sources) {
        // The last syncs of all sources would be most of the answer, and few of them are looked at.
        const { recent = [], recentOf = null } = this.sources?.get(sourceKey(source)) ?? {};
        Object.assign(source, { recent, recentOf });
      }
      this.sources = new Map(sources.map((source) => [sourceKey(source), source]));
      const running = sources.filter(({ running_sync_id, activity }) => running_sync_id && activity === 'running');
      for (const source of running) {
        const named = { ...source, sync_id: source.running_sync_id };
        if (!this.runs.has(runKey(named))) this.load(named);
      }
      this.settle(running);
      this.forget();
    });
  }

  async readLists() {
    const [changesets, ended] = await Promise.all([get(['changesets']), get(['syncs'], { limit: ENDED })]);
    Object.assign(this, { changesets, ended: ended.items });
  }

  /** Reads again what seems to run and does not: its end was missed, as when the daemon restarts. */
  settle(running) {
    const names = new Set(running.map(({ running_sync_id }) => running_sync_id));
    for (const run of this.runs.values()) {
      if (run.isOver || names.has(run.sync_id) || this.loading.has(run.key)) continue;
      this.load(run).catch((error) => {
        // It died before anything of it was stored.
        if (error.status === 404) run.end('lost', run.heardAt);
      });
    }
  }

  /** Forgets syncs that ended long ago; who looks at one has it. */
  forget() {
    const old = [...this.runs.values()].filter((run) => run.isOver && now() - run.endedAt > LINGER);
    for (const run of old.slice(0, -KEPT)) this.runs.delete(run.key);
  }

  async attempt(work) {
    try {
      await work();
      this.problem = null;
    } catch (error) {
      this.problem = error;
    }
    this.changed();
  }

  /** Returns the syncs that run, the longest running first, and those that have just ended. */
  running() {
    const shown = [...this.runs.values()].filter((run) => {
      return run.startedAt && (!run.isOver || now() - run.endedAt < LINGER);
    });
    return shown.sort((a, b) => a.isOver - b.isOver || a.startedAt - b.startedAt);
  }

  find(named) {
    return this.runs.get(runKey(named));
  }
}

const BOUNDARIES = new Set([
  'started', 'completed', 'cancelled', 'failed', 'committed', 'commit_failed',
  'deletes_held', 'deletes_approved', 'deletes_rejected',
]);

/** Reads all pages of a list. */
async function all(places, parameters) {
  const items = [];
  for (let cursor = null; ; ) {
    const page = await get(places, { ...parameters, limit: 1_000, cursor });
    items.push(...page.items);
    cursor = page.next;
    if (!cursor) return items;
  }
}
