// `starling publish` and `starling subscribe` against a running server.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { API_KEY, SECRET, STARLING, Server, freePort, token } from './support/server.js';

/** Runs to the end; with exactly these variables, so that none of this machine's have a say. */
async function starling(flags, { input = '', variables = {} } = {}) {
  const run = start(flags, variables);
  run.child.stdin.end(input);
  await run.ended;
  return run;
}

function start(flags, variables = {}) {
  const child = spawn(STARLING, flags, { env: variables });
  const run = { child, out: '', err: '', ended: once(child, 'close').then(([code]) => (run.code = code)) };
  child.stdout.on('data', (chunk) => (run.out += chunk));
  child.stderr.on('data', (chunk) => (run.err += chunk));
  return run;
}

/** A subscriber that is subscribed and ends after `count` publications. */
async function subscriber(t, server, count, ...flags) {
  const run = start(['subscribe', 'news', '--url', server.url, '--count', String(count), ...flags]);
  t.after(() => run.child.kill());
  while (!run.err.includes('subscribed to news')) {
    await Promise.race([once(run.child.stderr, 'data'), run.ended.then(() => assert.fail(run.err))]);
  }
  return run;
}

const faces = (server) => ({
  HTTP: ['--url', `${server.origin}/api`],
  gRPC: ['--grpc', `127.0.0.1:${server.grpcPort}`],
});

test('publish publishes JSON as it is, other text as a JSON text, and standard input', async (t) => {
  const server = await Server.start(t);
  for (const face of Object.values(faces(server))) {
    const run = await subscriber(t, server, 3);
    const publish = ['publish', ...face, '--key', API_KEY, 'news'];
    const first = await starling([...publish, '{"n": 1.00, "a": 12345678901234567890123}']);
    assert.deepEqual([first.code, first.out, first.err], [0, 'published to news\n', '']);
    const second = await starling([...publish, 'two words']);
    assert.equal(second.code, 0);
    assert.match(second.err, /not JSON/);
    assert.equal((await starling([...publish, '-'], { input: '[3]\n' })).code, 0);
    await run.ended;
    assert.deepEqual([run.code, run.out], [0, '{"n": 1.00, "a": 12345678901234567890123}\n"two words"\n[3]\n']);
  }
});

test('publish says why it was refused', async (t) => {
  const server = await Server.start(t);
  for (const face of Object.values(faces(server))) {
    const wrong = await starling(['publish', ...face, '--key', 'another key', 'news', '1']);
    assert.deepEqual([wrong.code, wrong.out], [1, '']);
    assert.match(wrong.err, /refuses the key/);
    const unknown = await starling(['publish', ...face, '--key', API_KEY, 'nowhere:news', '1']);
    assert.equal(unknown.code, 1);
    assert.match(unknown.err, /unknown channel \(error 102\)/);
  }
  const port = await freePort();
  for (const face of [['--url', `http://127.0.0.1:${port}`], ['--grpc', `127.0.0.1:${port}`]]) {
    const nobody = await starling(['publish', ...face, 'news', '1']);
    assert.equal(nobody.code, 1);
    assert.match(nobody.err, /refused/);
  }
});

test('publish and subscribe find address, key and secret in a configuration', async (t) => {
  const server = await Server.start(t, { client: { allow_anonymous_connect_without_token: false } });
  const folder = await mkdtemp(path.join(tmpdir(), 'starling-test-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const config = path.join(folder, 'config.json');
  await writeFile(config, JSON.stringify({
    http_server: { address: '0.0.0.0', port: server.port },
    http_api: { key: API_KEY },
    client: { token: { hmac_secret_key: SECRET } },
  }));
  const run = start(['subscribe', 'news', '--user', 'alice', '--count', '1', '--config', config]);
  t.after(() => run.child.kill());
  while (!run.err.includes('subscribed to news')) {
    await Promise.race([once(run.child.stderr, 'data'), run.ended.then(() => assert.fail(run.err))]);
  }
  assert.equal((await starling(['publish', 'news', '"found"', '--config', config])).code, 0);
  await run.ended;
  assert.deepEqual([run.code, run.out], [0, '"found"\n']);
});

test('subscribe speaks Protobuf too', async (t) => {
  const server = await Server.start(t);
  const run = await subscriber(t, server, 1, '--protobuf', '--token', token({ sub: 'alice' }));
  await server.api('publish', { channel: 'news', data: { a: 1 } });
  await run.ended;
  assert.deepEqual([run.code, run.out], [0, '{"a":1}\n']);
});

test('subscribe ends with the reason when it is no use to go on', async (t) => {
  const server = await Server.start(t);
  const wrong = await starling(['subscribe', 'news', '--url', server.url, '--token', 'wrong']);
  assert.deepEqual([wrong.code, wrong.out], [1, '']);
  assert.match(wrong.err, /invalid token.*3500/);
  const unknown = await starling(['subscribe', 'nowhere:news', '--url', server.url]);
  assert.equal(unknown.code, 1);
  assert.match(unknown.err, /unknown channel.*102/);
});

test('subscribe goes on after a crash of the server', async (t) => {
  const server = await Server.start(t);
  const run = await subscriber(t, server, 1);
  await server.kill();
  await server.run();
  while (run.err.split('subscribed to news').length < 3) await once(run.child.stderr, 'data');
  await server.api('publish', { channel: 'news', data: 'again' });
  await run.ended;
  assert.deepEqual([run.code, run.out], [0, '"again"\n']);
});
