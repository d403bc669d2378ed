// Starts and stops servers for tests: each on free ports, with a configuration of its own, ended with the test.

import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
/** The built program; `./test` says which. */
export const STARLING = process.env.STARLING ?? path.join(ROOT, 'target/debug/starling');
export const SECRET = 'secret of the tests';
export const API_KEY = 'key of the tests';
/** Generous: it only bounds how long a failing test takes. */
export const PATIENCE = 30_000;

/** Channels without a namespace are open; nobody needs a token. */
export const OPEN = {
  allow_subscribe_for_client: true,
  allow_subscribe_for_anonymous: true,
  allow_publish_for_client: true,
  allow_publish_for_anonymous: true,
};

/** A port that was free a moment ago. */
export async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  await new Promise((done) => probe.close(done));
  return port;
}

/** `starling serve` with a configuration file. */
export class Server {
  #folder;
  #child = null;
  output = '';

  /**
   * @param {object} t the test's context; the server ends with the test
   * @param {object} config sections that are added to, or put in place of, the usual ones
   */
  static async start(t, config = {}) {
    const server = new Server();
    server.port = await freePort();
    server.grpcPort = await freePort();
    server.#folder = await mkdtemp(path.join(tmpdir(), 'starling-test-'));
    const usual = {
      http_server: { address: '127.0.0.1', port: server.port },
      grpc_api: { enabled: true, address: '127.0.0.1', port: server.grpcPort, key: API_KEY },
      http_api: { key: API_KEY },
      health: { enabled: true },
      channel: { without_namespace: OPEN },
    };
    const client = { token: { hmac_secret_key: SECRET }, allow_anonymous_connect_without_token: true, ...config.client };
    await writeFile(path.join(server.#folder, 'config.json'), JSON.stringify({ ...usual, ...config, client }));
    t.after(() => server.dispose());
    await server.run();
    return server;
  }

  get url() {
    return `ws://127.0.0.1:${this.port}/connection/websocket`;
  }

  get origin() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts the program, also again after `kill`, on the same ports. Returns when it is healthy. */
  async run() {
    const child = spawn(STARLING, ['serve', '--config', path.join(this.#folder, 'config.json')]);
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (this.output += chunk));
    const ended = once(child, 'exit');
    for (const deadline = Date.now() + PATIENCE; ; ) {
      const healthy = await fetch(`${this.origin}/health`).then((answer) => answer.ok, () => false);
      if (healthy) return;
      const gone = await Promise.race([ended, pause(20)]);
      if (gone || Date.now() > deadline) throw new Error(`the server did not start:\n${this.output}`);
    }
  }

  /** Ends the program at once, as a crash would. */
  kill() {
    return this.#end('SIGKILL');
  }

  /** Asks the program to drain and returns its exit code. */
  stop() {
    return this.#end('SIGTERM');
  }

  async #end(signal) {
    const child = this.#child;
    if (child === null) return null;
    this.#child = null;
    const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : null;
    child.kill(signal);
    await ended;
    return child.exitCode;
  }

  async dispose() {
    await this.kill();
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** One call of the HTTP API. */
  async api(method, body, key = API_KEY) {
    const headers = { 'X-API-Key': key, 'Content-Type': 'application/json' };
    const answer = await fetch(`${this.origin}/api/${method}`, { method: 'POST', headers, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${method}: status ${answer.status}`);
    return answer.json();
  }
}

const base64url = (value) => Buffer.from(value).toString('base64url');

/** A token (HS256). */
export function token(claims, secret = SECRET) {
  const signed = `${base64url('{"alg":"HS256","typ":"JWT"}')}.${base64url(JSON.stringify(claims))}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** Resolves with the next `name` event of an emitter of the SDK; rejects when it does not come. */
export function event(emitter, name, wanted = () => true) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => finish(reject, new Error(`no "${name}" within ${PATIENCE / 1000} s`)), PATIENCE);
    const listener = (context) => wanted(context) && finish(resolve, context);
    const finish = (how, value) => {
      clearTimeout(timer);
      emitter.off(name, listener);
      how(value);
    };
    emitter.on(name, listener);
  });
}
