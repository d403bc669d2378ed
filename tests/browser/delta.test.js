// Patches in the Fossil format: ours applied by others, and others' by us.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Centrifuge } from 'centrifuge';
import * as fossil from 'fossil-delta';
import WebSocket, { WebSocketServer } from 'ws';
import { STARLING, event } from './support/server.js';

/** Built by `./test`, and by `cargo test`. */
const DELTA = path.join(path.dirname(STARLING), 'examples/delta');
const COUNT = 4000;

const run = promisify(execFile);
const bytes = (text) => new Uint8Array(Buffer.from(text, 'base64'));
const base64 = (data) => Buffer.from(data).toString('base64');
const lines = (text) => text.trimEnd().split('\n').map((line) => JSON.parse(line));

describe('patches between payloads', () => {
  const seed = String(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));
  let pairs;
  before(async () => {
    const { stdout } = await run(DELTA, ['make', String(COUNT), seed], { maxBuffer: 2 ** 30 });
    pairs = lines(stdout);
    assert.equal(pairs.length, COUNT);
  });

  test(`made by us, applied by fossil-delta (SEED=${seed})`, () => {
    let smaller = 0;
    for (const { base, target, patch } of pairs) {
      const made = fossil.applyDelta(bytes(base), bytes(patch));
      assert.equal(base64(made), target);
      smaller += bytes(patch).length < bytes(target).length;
    }
    assert.equal(smaller, COUNT);
  });

  test(`made by fossil-delta, applied by us (SEED=${seed})`, async () => {
    const child = spawn(DELTA, ['check'], { stdio: ['pipe', 'pipe', 'inherit'] });
    let answer = '';
    child.stdout.on('data', (chunk) => (answer += chunk));
    const ended = once(child, 'close');
    for (const { base, target } of pairs) {
      const patch = base64(fossil.createDelta(bytes(base), bytes(target)));
      child.stdin.write(`${JSON.stringify({ base, target, patch })}\n`);
    }
    child.stdin.end();
    assert.deepEqual(await ended, [0, null]);
    assert.equal(answer, `${COUNT}\n`);
  });

  test(`made by us, as strings of a JSON connection, applied by the official SDK (SEED=${seed})`, async (t) => {
    const texts = pairs.filter(({ text }) => text);
    assert.ok(texts.length > COUNT / 4);
    const publications = texts.flatMap(({ base, target, patch }) => [
      { data: text(base), payload: text(base) },
      { data: text(patch), delta: true, payload: text(target) },
    ]);
    const url = await publisher(t, publications);
    const client = new Centrifuge(url, { websocket: WebSocket });
    t.after(() => client.disconnect());
    const news = client.newSubscription('news', { delta: 'fossil' });
    const received = [];
    const all = event(news, 'publication', ({ data }) => received.push(data) === publications.length);
    const gone = event(client, 'disconnected').then(({ reason }) => assert.fail(`the SDK gave up: ${reason}`));
    gone.catch(() => {});
    news.subscribe();
    client.connect();
    await Promise.race([all, gone]);
    assert.deepEqual(received, publications.map(({ payload }) => JSON.parse(payload)));
  });
});

/** Must be UTF-8: what is not would be replaced in the JSON string without a word. */
function text(encoded) {
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes(encoded));
}

/** A server that accepts one subscription with delta compression and publishes. */
async function publisher(t, publications) {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  t.after(() => {
    for (const socket of server.clients) socket.terminate();
    return new Promise((done) => server.close(done));
  });
  server.on('connection', (socket) => {
    socket.on('message', (frame) => {
      for (const line of frame.toString().split('\n')) {
        const { id, connect, subscribe } = JSON.parse(line);
        if (connect) socket.send(JSON.stringify({ id, connect: { client: 'c', version: 'test' } }));
        if (!subscribe) continue;
        assert.equal(subscribe.delta, 'fossil');
        socket.send(JSON.stringify({ id, subscribe: { delta: true } }));
        for (const { data, delta } of publications) {
          socket.send(JSON.stringify({ push: { channel: subscribe.channel, pub: { data, delta } } }));
        }
      }
    });
  });
  await once(server, 'listening');
  return `ws://127.0.0.1:${server.address().port}`;
}
