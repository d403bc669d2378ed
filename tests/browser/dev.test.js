// `starling dev`: the page, and the commands that it prints.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { ARTIFACTS, application, launch } from './support/chromium.js';
import { startDev } from './support/dev.js';
import { ROOT, STARLING, event } from './support/server.js';

const run = promisify(execFile);

describe('the demo page', () => {
  let browser;
  before(async () => {
    browser = await launch();
  });
  after(() => browser?.close());

  async function demo(t, dev, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1180, height: 900 }, ...options });
    t.after(() => context.close());
    const page = await context.newPage();
    const complaints = [];
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    await page.goto(dev.origin);
    return { page, complaints };
  }

  const received = (page) => page.locator('#subscribers .log .new .body');

  test('shows on the right what is published on the left', async (t) => {
    const dev = await startDev(t);
    const { page, complaints } = await demo(t, dev);
    await page.locator('#subscribers .log .note').waitFor();
    for (const text of ['Hello from the left', 'Markup is <b>text</b> here', 'Third']) {
      await page.locator('#message').fill(text);
      await page.locator('#publish').click();
      await received(page).getByText(text, { exact: true }).waitFor();
    }
    assert.equal(await received(page).count(), 3);
    assert.equal(await page.locator('#publisher-log .failed').count(), 0);
    assert.match(await page.locator('[data-role=latency]').textContent(), /^\d+\.\d ms$/);
    assert.deepEqual(complaints, []);
  });

  test('shows what a backend publishes, to every subscriber', async (t) => {
    const dev = await startDev(t);
    const { page } = await demo(t, dev);
    await page.locator('#add').click();
    await page.locator('#subscribers .log .note').nth(1).waitFor();
    await publish(dev, 'demo', { text: 'Hello from a backend' });
    await received(page).nth(1).waitFor();
    assert.deepEqual(await received(page).allTextContents(), Array(2).fill('{"text":"Hello from a backend"}'));
  });

  test('follows another channel', async (t) => {
    const dev = await startDev(t);
    const { page } = await demo(t, dev);
    await page.locator('#subscribers .log .note').waitFor();
    await page.locator('#channel').fill('news');
    await page.locator('#channel').press('Enter');
    await page.getByText('subscribed to news').waitFor();
    await publish(dev, 'demo', 'to the channel before');
    await publish(dev, 'news', 'to the new channel');
    await received(page).first().waitFor();
    assert.deepEqual(await received(page).allTextContents(), ['"to the new channel"']);
    assert.match(await page.locator('#snippet').textContent(), /newSubscription\("news"\)/);
  });

  test('takes itself new keys when the server was started again', async (t) => {
    const dev = await startDev(t);
    const { page } = await demo(t, dev);
    await page.locator('#subscribers .log .note').waitFor();
    dev.child.kill('SIGKILL');
    await once(dev.child, 'exit');
    await page.getByText('again in').first().waitFor();
    const again = await startDev(t, '--port', new URL(dev.origin).port);
    assert.notEqual(again.key, dev.key);
    await page.getByText('connected, client').nth(1).waitFor();
    await page.locator('#subscribers .log .note').waitFor();
    await publish(again, 'demo', 'after the restart');
    await received(page).first().waitFor();
  });

  for (const colorScheme of ['light', 'dark']) {
    test(`looks as in test-artifacts/demo-${colorScheme}.png`, async (t) => {
      const dev = await startDev(t);
      const { page } = await demo(t, dev, { colorScheme });
      await page.locator('#subscribers .log .note').waitFor();
      for (const text of ['Hello from the left', 'And once more']) {
        await page.locator('#message').fill(text);
        await page.locator('#publish').click();
        await received(page).getByText(text, { exact: true }).waitFor();
      }
      await publish(dev, 'demo', { text: 'Hello from a backend' });
      await received(page).nth(2).waitFor();
      await page.screenshot({ path: path.join(ARTIFACTS, `demo-${colorScheme}.png`), fullPage: true });
      const sideways = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(sideways <= 0, 'the page must not scroll sideways');
    });
  }
});

describe('what starling dev prints', () => {
  test('the curl command publishes, and the token is for the user dev', async (t) => {
    const dev = await startDev(t);
    const client = new Centrifuge(dev.url, { websocket: WebSocket, token: dev.token });
    t.after(() => client.disconnect());
    const subscription = client.newSubscription('demo');
    const accepted = event(subscription, 'subscribed');
    subscription.subscribe();
    client.connect();
    await accepted;

    const command = /^ {2}(curl .*)$/m.exec(dev.text)[1];
    const byCurl = event(subscription, 'publication');
    await run('sh', ['-c', command]);
    assert.deepEqual((await byCurl).data, { text: 'Hello from curl' });

    const own = event(subscription, 'publication');
    await client.publish('demo', 'mine');
    assert.equal((await own).info.user, 'dev');
  });

  test('the commands for a terminal subscribe and publish, over HTTP and gRPC', async (t) => {
    const dev = await startDev(t);
    const [subscribe] = /starling subscribe .*$/m.exec(dev.text);
    const subscriber = spawn(STARLING, [...subscribe.split(' ').slice(1), '--count', '2']);
    t.after(() => subscriber.kill());
    let lines = '';
    let remarks = '';
    subscriber.stdout.on('data', (chunk) => (lines += chunk));
    subscriber.stderr.on('data', (chunk) => (remarks += chunk));
    const ended = once(subscriber, 'close');
    while (!remarks.includes('subscribed to demo')) {
      await Promise.race([once(subscriber.stderr, 'data'), ended.then(() => assert.fail(remarks))]);
    }
    const commands = dev.text.match(/\S*starling publish .*$/gm);
    assert.equal(commands.length, 2);
    for (const command of commands) await run('sh', ['-c', command], { cwd: ROOT });
    assert.deepEqual(await ended, [0, null]);
    assert.equal(lines, '{"text":"Hello from a terminal"}\n{"text":"Hello over gRPC"}\n');
  });
});

test('dev mode listens on this machine only', async () => {
  for (const flags of [['--address', '0.0.0.0'], ['--set', 'http_server.address=192.0.2.1']]) {
    await assert.rejects(run(STARLING, ['dev', '--port', '0', ...flags]), (error) => {
      assert.equal(error.code, 1);
      assert.match(error.stderr, /this machine only/);
      return true;
    });
  }
});

test('dev mode refuses pages from elsewhere', async (t) => {
  const dev = await startDev(t);
  const upgrade = (origin) =>
    new Promise((resolve) => {
      const socket = new WebSocket(dev.url, { origin });
      socket.on('open', () => socket.close(resolve('open')) ?? resolve('open'));
      socket.on('unexpected-response', (_, response) => resolve(response.statusCode));
    });
  assert.equal(await upgrade('https://example.com'), 403);
  assert.equal(await upgrade(await application(t)), 'open');
  assert.equal(await upgrade('http://[::1]:5173'), 'open');
  // A name that leads here by a trick of DNS must not be told the keys.
  const page = await fetchAs(dev.origin, 'rebound.example.com');
  assert.ok(!page.includes(dev.key));
});

function publish(dev, channel, data) {
  const headers = { 'X-API-Key': dev.key };
  return fetch(`${dev.origin}/api/publish`, { method: 'POST', headers, body: JSON.stringify({ channel, data }) });
}

async function fetchAs(origin, host) {
  const { stdout } = await run('curl', ['-s', '-H', `Host: ${host}`, `${origin}/`]);
  return stdout;
}
