// Requests, and the token that goes with them.

import { path, setClock } from './format.js';

const KEY = 'parallax-token';

/** Why a request was not answered as asked. */
export class Problem extends Error {
  constructor({ detail, help, code, status }) {
    super(detail);
    Object.assign(this, { help, code, status });
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
  /** Takes the token out of the address, where it would be seen and remembered. */
  adopt() {
    const given = /^#token=([^&]*)$/.exec(location.hash);
    if (!given) return;
    this.set(decodeURIComponent(given[1]));
    history.replaceState(null, '', `${location.pathname}#/`);
  },
};

function headers(more) {
  const value = token.get();
  return value ? { ...more, Authorization: `Bearer ${value}` } : more;
}

async function request(method, path, options = {}) {
  let response;
  try {
    response = await fetch(`/api/v1/${path}`, {
      method,
      signal: options.signal,
      headers: headers(options.headers ?? {}),
      cache: 'no-store',
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem({
      detail: 'the daemon does not answer',
      help: 'Is it running, and can this machine reach it?',
      code: 'unreachable',
    });
  }
  setClock(response.headers.get('date'));
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Problem({ detail: `status ${response.status}`, status: response.status, ...problem });
}

export async function get(places, parameters, options) {
  return (await request('GET', path(places, parameters), options)).json();
}

export async function send(method, places) {
  return (await request(method, path(places))).json();
}

/**
 * Reads a stream of events until it ends, and calls `on.open` once and `on.event` for each. Read
 * with fetch, because an EventSource sends no token.
 */
export async function stream(place, lastId, on, signal) {
  const accept = { Accept: 'text/event-stream' };
  const options = { signal, headers: lastId ? { ...accept, 'Last-Event-ID': lastId } : accept };
  const response = await request('GET', place, options);
  on.open();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let event = { data: [] };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    on.alive();
    for (const line of lines) {
      const [, name, text] = /^([^:]*):? ?(.*)$/.exec(line.replace(/\r$/, ''));
      if (line.trim() === '') {
        if (event.data.length) on.event({ ...event, data: event.data.join('\n') });
        event = { data: [] };
      } else if (name === 'data') event.data.push(text);
      else if (name === 'id') event.id = text;
      else if (name === 'event') event.name = text;
    }
  }
}
