// Starts the daemon, opens the dashboard in Chromium, and looks.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const { DAEMON, CHROMIUM, PLAYWRIGHT } = process.env;
const { chromium } = await import(PLAYWRIGHT);
const [task, directory] = process.argv.slice(2);

/** For whatever is waited for: far longer than it takes. */
const PATIENCE = 30_000;
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

class Daemon {
  constructor(place, connectors, options = '') {
    Object.assign(this, { place, connectors, options, listen: '127.0.0.1:0' });
  }

  async start() {
    const config = `[store]\nurl = 'sqlite:parallax.db'\n[server]\nlisten = '${this.listen}'\n${this.options}\n`;
    writeFileSync(join(this.place, 'parallax.toml'), config + this.connectors.map(section).join(''));
    this.process = spawn(DAEMON, ['serve', '--log-format', 'text'], {
      cwd: this.place,
      env: { ...process.env, WORDS: this.place },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.log = '';
    this.process.stderr.on('data', (text) => (this.log += text));
    this.listen = await new Promise((resolve, reject) => {
      this.process.stdout.on('data', (line) => resolve(/http:\/\/(\S+)/.exec(line)[1]));
      this.process.on('exit', (code) => reject(new Error(`the daemon ended with ${code}: ${this.log}`)));
    });
    this.base = `http://${this.listen}`;
    const tokens = readFileSync(join(this.place, 'parallax.db.tokens'), 'utf8');
    this.token = /^admin (\S+)$/m.exec(tokens)[1];
  }

  async kill() {
    const ended = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.kill('SIGKILL');
    await ended;
  }

  /** Lets a step go on that waits for a word. */
  say(word) {
    writeFileSync(join(this.place, word), '');
  }

  async ask(method, path) {
    const headers = { Authorization: `Bearer ${this.token}` };
    const response = await fetch(`${this.base}/api/v1/${path}`, { method, headers });
    return response.json();
  }

  /** Waits until no sync of a source runs. */
  async idle(connector, account) {
    const activity = async () => (await this.ask('GET', `sources/${connector}/${account}`)).activity;
    while ((await activity()) !== 'idle') await new Promise((resolve) => setTimeout(resolve, 100));
  }

  /** Asks for a sync of a source. */
  async begin(connector, account) {
    await this.idle(connector, account);
    await this.ask('POST', `sources/${connector}/${account}/syncs`);
  }

  async sync(connector, account) {
    await this.begin(connector, account);
    await this.idle(connector, account);
  }
}

const section = ({ kind, account, every = '6h' }) =>
  `[[connector]]\nkind = '${kind}'\naccount = '${account}'\nevery = '${every}'\nhold_deletes = { above = 5, share = 0.2 }\n`;

/** Opens a page whose every complaint is remembered. */
async function open(browser, daemon, options = {}) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, ...options });
  page.setDefaultTimeout(PATIENCE);
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(`error: ${error.stack}`));
  page.on('console', (message) => {
    // Policies that are broken are told here, too.
    if (['error', 'warning'].includes(message.type())) page.complaints.push(`${message.type()}: ${message.text()}`);
  });
  await page.goto(`${daemon.base}/#token=${daemon.token}`);
  return page;
}

/** Waits until an element has a text. */
async function told(page, selector, text) {
  const element = page.locator(selector, { hasText: text }).first();
  await element.waitFor().catch(async (error) => {
    const all = await page.locator(selector).allInnerTexts();
    throw new Error(`${selector} has no ${text}, but ${JSON.stringify(all)}\n${error.message}`);
  });
}

/** A sync that runs. One that has ended stays beside it for some seconds. */
const article = (connector) => `article.run.running:has-text("${connector}")`;
const step = (name, connector = 'guided') => `${article(connector)} tr[data-step="${name}"]`;

async function test(browser) {
  const connectors = ['guided', 'shrinking', 'host'].map((kind) => ({ kind, account: 'acme' }));
  const daemon = new Daemon(directory, connectors);
  await daemon.start();
  try {
    for (const connector of ['shrinking', 'host']) await daemon.sync(connector, 'acme');
    const page = await open(browser, daemon);
    await watches(page, daemon);
    await explains(page);
    await staysText(page, daemon);
    await approves(page, daemon);
    await fitsAnywhere(page, daemon);
    await survives(page, daemon);
    await asksForToken(browser, daemon);
  } catch (error) {
    console.log(daemon.log);
    throw error;
  } finally {
    await daemon.kill();
  }
}

/** A live sync is watched step by step, and the page reloaded in the middle. */
async function watches(page, daemon) {
  await told(page, '#connection', 'Live');
  assert.equal(page.url().includes('token'), false, 'the token stands in the address');
  await daemon.ask('POST', 'sources/guided/acme/syncs');
  await told(page, step('users'), 'running');
  await told(page, `${step('users')} td:nth-of-type(3)`, '2');
  await told(page, step('groups'), 'waiting');
  await page.reload();
  await told(page, step('users'), 'running');
  await told(page, `${step('users')} td:nth-of-type(3)`, '2');
  daemon.say('users');
  await told(page, step('users'), 'done');
  await told(page, `${step('users')} td:nth-of-type(3)`, '3');
  await told(page, step('groups'), 'running');
  daemon.say('groups');
  await told(page, step('groups'), 'retrying');
  await page.reload();
  await told(page, step('groups'), 'running');
  daemon.say('keys');
  await told(page, step('keys'), 'failed');
  await told(page, step('grants'), 'skipped');
  await page.locator(`${article('guided')} h3 a`).click();
  daemon.say('groups');
}

/** The view of a sync says what it did, and what went wrong. */
async function explains(page) {
  await told(page, '.head .state', 'partial');
  await told(page, 'tr[data-step="groups"] .mark', 'critical');
  await told(page, '.critical-path', 'users → groups');
  await told(page, '.errors', 'list keys: 403 <b>no</b>');
  await told(page, '.errors', 'Look at the credentials');
  await told(page, '.log', 'Attempt 1 failed');
  await told(page, '.log', 'Committed: partial');
  assert.equal(await page.locator('.graph .card').count(), 4);
  const created = page.locator('tr', { has: page.getByText('Entities', { exact: true }) }).locator('td').first();
  assert.equal(await created.innerText(), '4');
}

/** What is stored is never anything but text. */
async function staysText(page, daemon) {
  await page.getByRole('link', { name: 'Explore' }).click();
  await page.getByRole('searchbox').fill('<img');
  await page.getByRole('link', { name: '<img src=x' }).click();
  await told(page, 'h2.name', '<img src=x onerror=');
  await told(page, '.properties td', '<img src=x onerror=');
  await told(page, '.timeline', 'created');
  assert.equal(await page.locator('main img, main b b').count(), 0);
  assert.match(await page.title(), /Parallax$/);
  const hosts = await daemon.ask('GET', 'search?q=root&type=host_user');
  await page.goto(`${daemon.base}/#/explore/${hosts.items[0].id}`);
  await told(page, '.near .centre', 'root');
}

/** A held changeset is looked at and approved. */
async function approves(page, daemon) {
  await page.getByRole('link', { name: 'Sources' }).click();
  await page.getByRole('button', { name: 'Sync shrinking acme now' }).click();
  await told(page, '#tab-held', '1');
  await page.getByRole('link', { name: 'Held' }).click();
  await page.getByRole('link', { name: 'Changeset 1' }).click();
  await told(page, 'td.name', 'machine-7');
  await page.getByRole('button', { name: 'Approve…' }).click();
  await told(page, 'dialog', 'Delete 10 entities?');
  await page.getByRole('button', { name: 'Cancel' }).click();
  assert.equal((await daemon.ask('GET', 'changesets')).length, 1);
  await page.getByRole('button', { name: 'Approve…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete 10 entities' }).click();
  await told(page, '.changeset .state', 'approved');
  await page.getByRole('link', { name: 'Sources' }).click();
  await told(page, 'tr[data-source="shrinking"] td:nth-of-type(3)', '2');
  // Its last syncs are asked for once it is looked at.
  await page.reload();
  await page.locator('tr[data-source="host"] .spark:not([aria-label^="last 0"])').waitFor();
  for (const name of ['Syncs', 'Now']) {
    await page.getByRole('link', { name, exact: true }).click();
    await told(page, 'main', 'shrinking');
  }
  assert.deepEqual(page.complaints, []);
}

/** No view is wider than a phone, or has a button or link without a name. */
async function fitsAnywhere(page, daemon) {
  const { items } = await daemon.ask('GET', 'syncs?connector_id=guided');
  const { sync_id, connector_id, account_id } = items[0];
  await page.setViewportSize({ width: 390, height: 844 });
  for (const place of ['', 'sources', 'syncs', `sync/${sync_id}?${new URLSearchParams({ connector_id, account_id })}`, 'held/1', 'held?all=1', 'explore']) {
    await page.goto(`${daemon.base}/#/${place}`);
    await page.reload();
    await page.locator('main :is(table, article)').first().waitFor();
    const found = await page.evaluate(() => ({
      width: document.documentElement.scrollWidth,
      headings: document.querySelectorAll('h1').length,
      nameless: [...document.querySelectorAll('button, a')].filter((one) => !(one.ariaLabel || one.textContent.trim())).map((one) => one.outerHTML),
    }));
    assert.deepEqual(found, { width: 390, headings: 1, nameless: [] }, place);
  }
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.getByRole('link', { name: 'Now' }).click();
  assert.deepEqual(page.complaints, []);
}

/** Where nothing can be read without a token, the page asks for one. */
async function asksForToken(browser, daemon) {
  await daemon.kill();
  daemon.options = 'protect_reads = true';
  await daemon.start();
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(daemon.base);
  await page.getByRole('button', { name: 'Enter a token' }).click();
  await page.getByLabel('Token').last().fill(daemon.token);
  await page.keyboard.press('Enter');
  await told(page, '#connection', 'Live');
  await told(page, '.tiles', 'Sources');
}

/** A daemon that dies is missed, and one that comes back is followed. */
async function survives(page, daemon) {
  await daemon.ask('POST', 'sources/guided/acme/syncs');
  await told(page, step('users'), 'running');
  const before = await page.locator(article('guided')).getAttribute('data-sync');
  await daemon.kill();
  await told(page, '#connection', 'Connection lost');
  await daemon.start();
  await told(page, '#connection', 'Live');
  await page.locator(`article.run.running[data-sync="${before}"]`).waitFor({ state: 'detached' });
  await daemon.ask('POST', 'sources/guided/acme/syncs');
  await told(page, step('users'), 'running');
  const ours = page.complaints.filter((text) => !/Failed to load resource|ERR_/.test(text));
  assert.deepEqual(ours, []);
}

async function pictures(browser) {
  const place = mkdtempSync(join(tmpdir(), 'parallax-'));
  const kinds = [['host', 'web-1'], ['okta', 'acme'], ['github', 'acme'], ['aws', 'prod-eu'], ['payroll', 'main']];
  const daemon = new Daemon(place, kinds.map(([kind, account], n) => ({ kind, account, every: `${n + 5}m` })));
  await daemon.start();
  try {
    for (let n = 0; n < 4; n += 1) await Promise.all(kinds.filter(([kind]) => kind !== 'okta').map((one) => daemon.sync(...one)));
    await daemon.sync('okta', 'acme');
    const [app] = (await daemon.ask('GET', 'search?q=app-007')).items;
    const syncs = async (connector) => (await daemon.ask('GET', `syncs?connector_id=${connector}&limit=1`)).items[0];
    const github = await syncs('github');
    const view = (sync) => `sync/${sync.sync_id}?connector_id=${sync.connector_id}&account_id=${sync.account_id}`;
    for (const colorScheme of ['light', 'dark']) {
      const page = await open(browser, daemon, { colorScheme });
      const shoot = async (name, place, ready) => {
        await page.goto(`${daemon.base}/#/${place}`);
        await told(page, 'main', ready);
        await page.waitForTimeout(400);
        await page.screenshot({ path: join(directory, `dashboard-${name}-${colorScheme}.png`) });
      };
      await shoot('sources', 'sources', 'payroll');
      await shoot('syncs', 'syncs', 'payroll');
      await shoot('sync', view(github), 'Step graph');
      await shoot('held', 'held/1', 'instance');
      await shoot('explore', `explore/${app.id}`, 'Neighbours');
      for (const one of [['okta', 'acme'], ['github', 'acme'], ['host', 'web-1']]) await daemon.begin(...one);
      await page.goto(`${daemon.base}/#/`);
      await told(page, step('users', 'okta'), 'running');
      await page.waitForTimeout(1_700);
      await page.screenshot({ path: join(directory, `dashboard-now-${colorScheme}.png`) });
      if (colorScheme === 'light') {
        await page.setViewportSize({ width: 390, height: 844 });
        await page.waitForTimeout(300);
        await page.screenshot({ path: join(directory, 'dashboard-phone.png') });
      }
      assert.deepEqual(page.complaints, []);
      await page.close();
    }
  } finally {
    await daemon.kill();
    rmSync(place, { recursive: true });
  }
}

const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
try {
  await { test, pictures }[task](browser);
} finally {
  await browser.close();
}
