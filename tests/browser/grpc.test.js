// A backend that has nothing but api.proto: clients as gRPC generates them.

import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { Metadata, credentials, loadPackageDefinition, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { API_KEY, ROOT, Server, event } from './support/server.js';

const definition = loadSync(path.join(ROOT, 'proto/proto/api.proto'), { keepCase: true, defaults: true });
const { CentrifugoApi } = loadPackageDefinition(definition).centrifugal.centrifugo.api;

/** Calls by name, with the key that the server asks for. */
function backend(t, server, key = API_KEY) {
  const stub = new CentrifugoApi(`127.0.0.1:${server.grpcPort}`, credentials.createInsecure());
  t.after(() => stub.close());
  const metadata = new Metadata();
  metadata.set('authorization', `apikey ${key}`);
  return (method, request) => promisify(stub[method].bind(stub))(request, metadata);
}

const json = (value) => Buffer.from(JSON.stringify(value));

test('a generated client publishes, and a subscriber receives it', async (t) => {
  const server = await Server.start(t);
  const call = backend(t, server);
  const client = new Centrifuge(server.url, { websocket: WebSocket });
  t.after(() => client.disconnect());
  const news = client.newSubscription('news');
  const accepted = event(news, 'subscribed');
  news.subscribe();
  client.connect();
  await accepted;

  const arrived = event(news, 'publication');
  const published = await call('Publish', { channel: 'news', data: json({ from: 'gRPC' }) });
  assert.equal(published.error, null);
  assert.deepEqual((await arrived).data, { from: 'gRPC' });

  const again = event(news, 'publication');
  const answer = await call('Broadcast', { channels: ['news', 'other'], data: json({ to: 'both' }) });
  assert.equal(answer.result.responses.length, 2);
  assert.deepEqual((await again).data, { to: 'both' });

  const { result } = await call('Channels', {});
  assert.deepEqual(Object.keys(result.channels), ['news']);
  const info = await call('Info', {});
  assert.equal(info.result.nodes.length, 1);
  assert.equal(info.result.nodes[0].num_clients, 1);
});

test('errors of the API are in the answer, a wrong key is a status', async (t) => {
  const server = await Server.start(t);
  const answer = await backend(t, server)('Publish', { channel: 'nowhere:news', data: json(1) });
  assert.equal(answer.error.code, 102);
  await assert.rejects(backend(t, server, 'another key')('Publish', { channel: 'news', data: json(1) }), {
    code: status.UNAUTHENTICATED,
  });
});
