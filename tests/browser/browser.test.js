// The official SDK in a real browser, on a page of another origin.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { application, launch } from './support/chromium.js';
import { Server, token } from './support/server.js';

describe('the official SDK in Chromium', () => {
  let browser;
  before(async () => {
    browser = await launch();
  });
  after(() => browser?.close());

  /** A page of the application with the SDK loaded. */
  async function page(t, origin, script = 'centrifuge.js') {
    const context = await browser.newContext();
    t.after(() => context.close());
    const opened = await context.newPage();
    await opened.goto(origin);
    await opened.addScriptTag({ url: `/${script}` });
    return opened;
  }

  for (const [name, script] of [['JSON', 'centrifuge.js'], ['Protobuf', 'centrifuge.protobuf.js']]) {
    test(`subscribes and receives from a backend and from itself, with ${name}`, async (t) => {
      const origin = await application(t);
      const server = await Server.start(t, { client: { allowed_origins: [origin] } });
      const opened = await page(t, origin, script);
      // In the page, where no import of this file reaches.
      const subscribe = async ({ url, token, binary }) => {
        const client = new globalThis.Centrifuge(url, { token });
        const subscription = client.newSubscription('news');
        const text = (data) => (binary ? new TextDecoder().decode(data) : JSON.stringify(data));
        globalThis.received = [];
        subscription.on('publication', ({ data }) => globalThis.received.push(text(data)));
        subscription.subscribe();
        client.connect();
        await subscription.ready(30_000);
        const mine = { from: 'the page' };
        await subscription.publish(binary ? new TextEncoder().encode(JSON.stringify(mine)) : mine);
      };
      await opened.evaluate(subscribe, { url: server.url, token: token({ sub: 'alice' }), binary: name === 'Protobuf' });
      await server.api('publish', { channel: 'news', data: { from: 'a backend' } });
      await opened.waitForFunction(() => globalThis.received.length === 2);
      const received = await opened.evaluate(() => globalThis.received);
      assert.deepEqual(received, ['{"from":"the page"}', '{"from":"a backend"}']);
    });
  }

  test('is refused on a page of an origin that is not allowed, and the log says which option', async (t) => {
    const origin = await application(t);
    const server = await Server.start(t, { client: { allowed_origins: ['https://example.com'] } });
    const opened = await page(t, origin);
    const outcome = await opened.evaluate((url) => {
      const client = new globalThis.Centrifuge(url);
      return new Promise((resolve) => {
        client.on('connected', () => resolve('connected'));
        client.on('error', ({ error }) => resolve(error.message));
        client.connect();
      });
    }, server.url);
    assert.equal(outcome, 'transport closed');
    assert.ok(server.output.includes(origin), server.output);
    assert.ok(server.output.includes('client.allowed_origins'), server.output);
  });

  test('comes back after a crash of the server', async (t) => {
    const origin = await application(t);
    const server = await Server.start(t, { client: { allowed_origins: ['http://127.0.0.1:*'] } });
    const opened = await page(t, origin);
    await opened.evaluate(async (url) => {
      const client = new globalThis.Centrifuge(url, { minReconnectDelay: 10, maxReconnectDelay: 100 });
      globalThis.subscription = client.newSubscription('news');
      globalThis.times = 0;
      globalThis.subscription.on('subscribed', () => (globalThis.times += 1));
      globalThis.subscription.on('publication', ({ data }) => (globalThis.last = data));
      globalThis.subscription.subscribe();
      client.connect();
      await globalThis.subscription.ready(30_000);
    }, server.url);
    await server.kill();
    await opened.waitForFunction(() => globalThis.subscription.state === 'subscribing');
    await server.run();
    await opened.waitForFunction(() => globalThis.times === 2);
    await server.api('publish', { channel: 'news', data: 'again' });
    await opened.waitForFunction(() => globalThis.last === 'again');
  });
});
