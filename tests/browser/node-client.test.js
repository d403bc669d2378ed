// The official SDK in Node.js, with both encodings.

import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, test } from 'node:test';
import { Centrifuge } from 'centrifuge';
import { Centrifuge as CentrifugeProtobuf } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';
import { OPEN, Server, event, token } from './support/server.js';

const ENCODINGS = {
  JSON: { Client: Centrifuge, encode: (value) => value, decode: (value) => value },
  // Payloads are bytes there, and the application says what they mean.
  Protobuf: {
    Client: CentrifugeProtobuf,
    encode: (value) => new TextEncoder().encode(JSON.stringify(value)),
    decode: (value) => JSON.parse(new TextDecoder().decode(value)),
  },
};

for (const [name, { Client, encode, decode }] of Object.entries(ENCODINGS)) {
  describe(`the official SDK with ${name}`, () => {
    /** A client that ends with the test. Reconnects quickly, so that tests are quick. */
    function client(t, url, options = {}) {
      const made = new Client(url, { websocket: WebSocket, minReconnectDelay: 10, maxReconnectDelay: 100, ...options });
      t.after(() => made.disconnect());
      return made;
    }

    async function connected(t, url, options) {
      const made = client(t, url, options);
      const greeted = event(made, 'connected');
      made.connect();
      await greeted;
      return made;
    }

    async function subscribed(made, channel) {
      const subscription = made.getSubscription(channel) ?? made.newSubscription(channel);
      const accepted = event(subscription, 'subscribed');
      subscription.subscribe();
      await accepted;
      return subscription;
    }

    test('connects without a token where that is allowed', async (t) => {
      const server = await Server.start(t);
      const made = client(t, server.url);
      const greeted = event(made, 'connected');
      made.connect();
      const context = await greeted;
      assert.match(context.client, /^[0-9a-f-]{36}$/);
      assert.equal(context.transport, 'websocket');
    });

    test('is refused without a token where that is not allowed', async (t) => {
      const server = await Server.start(t, { client: { allow_anonymous_connect_without_token: false } });
      const made = client(t, server.url);
      const refused = event(made, 'disconnected');
      made.connect();
      assert.equal((await refused).code, 3501);
    });

    test('connects with a token, and others see who published', async (t) => {
      const server = await Server.start(t);
      const alice = await connected(t, server.url, { token: token({ sub: 'alice' }) });
      const bob = await connected(t, server.url, { token: token({ sub: 'bob' }) });
      const news = await subscribed(bob, 'news');
      const arrived = event(news, 'publication');
      await alice.publish('news', encode({ text: 'hello' }));
      const publication = await arrived;
      assert.deepEqual(decode(publication.data), { text: 'hello' });
      assert.equal(publication.info.user, 'alice');
    });

    test('is disconnected for good by a wrong token', async (t) => {
      const server = await Server.start(t);
      const made = client(t, server.url, { token: token({ sub: 'alice' }, 'another secret') });
      const refused = event(made, 'disconnected');
      made.connect();
      assert.equal((await refused).code, 3500);
      assert.equal(made.state, 'disconnected');
    });

    test('gets a new token when the old one has expired', async (t) => {
      const server = await Server.start(t);
      const fresh = token({ sub: 'alice', exp: Math.floor(Date.now() / 1000) + 600 });
      let asked = 0;
      const options = { token: token({ sub: 'alice', exp: 1 }), getToken: async () => ((asked += 1), fresh) };
      await connected(t, server.url, options);
      assert.equal(asked, 1);
    });

    test('receives what a backend publishes, in order', async (t) => {
      const server = await Server.start(t);
      const made = await connected(t, server.url);
      const news = await subscribed(made, 'news');
      const received = [];
      news.on('publication', ({ data }) => received.push(decode(data).n));
      const last = event(news, 'publication', ({ data }) => decode(data).n === 49);
      for (let n = 0; n < 50; n += 1) await server.api('publish', { channel: 'news', data: { n } });
      await last;
      assert.deepEqual(received, Array.from({ length: 50 }, (_, n) => n));
    });

    test('receives its own publications', async (t) => {
      const server = await Server.start(t);
      const made = await connected(t, server.url);
      const news = await subscribed(made, 'news');
      const arrived = event(news, 'publication');
      await news.publish(encode('mine'));
      assert.equal(decode((await arrived).data), 'mine');
    });

    test('may not do what the channel does not allow', async (t) => {
      const rules = { ...OPEN, allow_publish_for_client: false, allow_publish_for_anonymous: false };
      const server = await Server.start(t, { channel: { without_namespace: rules } });
      const made = await connected(t, server.url);
      await assert.rejects(made.publish('news', encode(1)), { code: 103 });
      const unknown = made.newSubscription('nowhere:news');
      const refused = event(unknown, 'unsubscribed');
      unknown.subscribe();
      assert.equal((await refused).code, 102);
      assert.equal(made.state, 'connected');
    });

    test('holds several subscriptions, each with its own publications', async (t) => {
      const server = await Server.start(t);
      const made = await connected(t, server.url);
      const channels = Array.from({ length: 20 }, (_, n) => `channel-${n}`);
      const subscriptions = channels.map((channel) => made.newSubscription(channel));
      const accepted = subscriptions.map((subscription) => event(subscription, 'subscribed'));
      const arrived = subscriptions.map((subscription) => event(subscription, 'publication'));
      for (const subscription of subscriptions) subscription.subscribe();
      await Promise.all(accepted);
      for (const channel of channels) await server.api('publish', { channel, data: channel });
      const data = (await Promise.all(arrived)).map((publication) => decode(publication.data));
      assert.deepEqual(data, channels);
    });

    test('unsubscribes and subscribes again, over and over', async (t) => {
      const server = await Server.start(t);
      const made = await connected(t, server.url);
      const news = made.newSubscription('news');
      const received = [];
      news.on('publication', ({ data }) => received.push(decode(data)));
      for (let round = 0; round < 20; round += 1) {
        await subscribed(made, 'news');
        const arrived = event(news, 'publication');
        await server.api('publish', { channel: 'news', data: `heard ${round}` });
        await arrived;
        news.unsubscribe();
        // Commands are answered in order: behind this reply the server has forgotten the subscription.
        await made.publish('other', encode(round));
        await server.api('publish', { channel: 'news', data: `not heard ${round}` });
      }
      assert.deepEqual(received, Array.from({ length: 20 }, (_, round) => `heard ${round}`));
      const { result } = await server.api('channels', {});
      assert.deepEqual(result.channels, {});
    });

    test('is unsubscribed by the server API', async (t) => {
      const server = await Server.start(t);
      const made = await connected(t, server.url, { token: token({ sub: 'alice' }) });
      const news = await subscribed(made, 'news');
      const ended = event(news, 'unsubscribed');
      await server.api('unsubscribe', { user: 'alice', channel: 'news' });
      assert.equal((await ended).code, 2000);
    });

    test('is disconnected by the server API', async (t) => {
      const server = await Server.start(t);
      const made = await connected(t, server.url, { token: token({ sub: 'alice' }) });
      const ended = event(made, 'disconnected');
      await server.api('disconnect', { user: 'alice' });
      assert.equal((await ended).code, 3503);
    });

    test('survives a crash of the server', async (t) => {
      const server = await Server.start(t);
      const made = await connected(t, server.url);
      const news = await subscribed(made, 'news');
      const lost = event(made, 'connecting');
      const back = event(news, 'subscribed');
      await server.kill();
      await lost;
      await server.run();
      await back;
      const arrived = event(news, 'publication');
      await server.api('publish', { channel: 'news', data: 'after the crash' });
      assert.equal(decode((await arrived).data), 'after the crash');
    });

    test('is told to come back when the server drains', async (t) => {
      const server = await Server.start(t);
      const made = await connected(t, server.url);
      const news = await subscribed(made, 'news');
      const told = event(made, 'connecting');
      const back = event(news, 'subscribed');
      assert.equal(await server.stop(), 0);
      assert.equal((await told).code, 3001);
      await server.run();
      await back;
      const arrived = event(news, 'publication');
      await made.publish('news', encode('after the drain'));
      assert.equal(decode((await arrived).data), 'after the drain');
    });

    test('answers pings, so that a quiet connection stays', async (t) => {
      const server = await Server.start(t, { client: { ping_interval: '1s', pong_timeout: '500ms' } });
      const frames = new EventEmitter();
      class Watched extends WebSocket {
        constructor(...given) {
          super(...given);
          this.on('message', (frame) => frames.emit('frame', Buffer.from(frame).toString()));
        }
      }
      const made = await connected(t, server.url, { websocket: Watched });
      const pings = new Set(['{}', '\0']);
      let count = 0;
      // An unanswered ping would have ended the connection before the next one.
      await event(frames, 'frame', (frame) => pings.has(frame) && (count += 1) === 3);
      assert.equal(made.state, 'connected');
    });
  });
}
