// Numbers, times and names as people read them.

import { h } from './dom.js';

const NUMBER = new Intl.NumberFormat('en');
const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const EXACT = new Intl.DateTimeFormat('en', { dateStyle: 'medium', timeStyle: 'long' });

export const number = (n) => NUMBER.format(n);
/** Returns a large number in few digits. */
export const short = (n) => (n < 100_000 ? NUMBER.format(n) : SHORT.format(n));
export const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;

/** Returns how many entities and relationships, in words. */
export function counts(entities, relationships) {
  const parts = [];
  if (entities || !relationships) parts.push(plural(entities, 'entity', 'entities'));
  if (relationships) parts.push(plural(relationships, 'relationship', 'relationships'));
  return parts.join(' and ');
}

let skew = 0;

/** Takes the server's clock, in whole seconds, from an answer. A small difference is no news. */
export function setClock(date) {
  const difference = Date.parse(date) + 500 - Date.now();
  if (Number.isNaN(difference)) return;
  skew = Math.abs(difference) > 2_000 ? difference : 0;
}

/** Returns the time by the server's clock. */
export const now = () => Date.now() + skew;

/** Returns a duration in at most two units. */
export function duration(ms) {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  const s = ms / 1_000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  const two = (a, unit, b, small) => (b ? `${a} ${unit} ${b} ${small}` : `${a} ${unit}`);
  const m = Math.floor(s / 60);
  if (m < 60) return two(m, 'min', Math.floor(s % 60), 's');
  const hours = Math.floor(m / 60);
  if (hours < 48) return two(hours, 'h', m % 60, 'min');
  return two(Math.floor(hours / 24), 'd', hours % 24, 'h');
}

/** Returns a duration in whole units, for what ticks. */
function coarse(ms) {
  const s = Math.floor(ms / 1_000);
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min`;
  if (s < 172_800) return `${Math.floor(s / 3_600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

/** Returns how long ago or ahead a time is, in words. */
export function relative(at) {
  const ms = now() - Date.parse(at);
  if (Math.abs(ms) < 1_000) return 'now';
  return ms > 0 ? `${coarse(ms)} ago` : `in ${coarse(-ms)}`;
}

/** Describes a time: how long ago or ahead, and exactly when on hover. */
export function time(at) {
  if (!at) return h('span', { class: 'faint' }, 'never');
  return h('time', { datetime: at, title: EXACT.format(Date.parse(at)) }, relative(at));
}

/** Returns the time of day, to the millisecond. */
export function clock(at) {
  const date = new Date(at);
  const two = (n, digits = 2) => String(n).padStart(digits, '0');
  const parts = [date.getHours(), date.getMinutes(), date.getSeconds()].map((n) => two(n));
  return `${parts.join(':')}.${two(date.getMilliseconds(), 3)}`;
}

/** Describes an id that is too long to be read. */
export const id = (text, keep = 13) =>
  h('code', { title: text }, text.length > keep + 1 ? `${text.slice(0, keep)}…` : text);

/** Returns the address of a place with parameters. Those that are null or empty are left out. */
export function path(places, parameters = {}) {
  const set = Object.entries(parameters).filter(([, value]) => value != null && value !== '');
  const query = new URLSearchParams(set).toString();
  return places.map(encodeURIComponent).join('/') + (query ? `?${query}` : '');
}

/** Returns a view's address. */
export const link = (places, parameters) => `#/${path(places, parameters)}`;

export const syncLink = ({ sync_id, connector_id, account_id }) =>
  link(['sync', sync_id], { connector_id, account_id });

export const sourceKey = ({ connector_id, account_id }) => `${connector_id}\n${account_id}`;

/** Describes a source: what reads, and which account. */
export const source = ({ connector_id, account_id }) =>
  h('span', { class: 'source' }, h('b', null, connector_id), ' ', h('span', null, account_id));

export const isFailing = ({ failures, last_outcome, broken }) => broken || failures > 0 || last_outcome === 'failed';

/** Returns how many records a sync did something with. */
export const both = (sync, what) => sync[`entities_${what}`] + sync[`relationships_${what}`];
