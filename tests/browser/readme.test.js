// The README as a user follows it: every fenced block is run, in order, in one folder.
//
// A comment behind a block says what to make of it (nothing: a shell runs it and it must succeed):
//
//   background, browser   goes on running under this name, as a program or as a page in Chromium
//   ready, until          goes on when the block has printed this, or when this command succeeds
//   ends                  background blocks to end before
//   file                  the block is this file
//   node                  Node.js runs it
//   prints                what the output must have
//   arrives, at           what the background blocks under these names must print then
//   exit                  exit codes that are right
//   smaller               texts of the block and what the test takes instead
//   instead, run          what a fresh clone needs and this machine has: the check that takes its place
//
// The test runs other text than the reader in two places: the usual ports become free ones, and `cargo run --release --`
// becomes the program that is built already, in the profile of the other tests.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { application, launch } from './support/chromium.js';
import { PATIENCE, ROOT, STARLING, freePort } from './support/server.js';

const LOADTEST = path.join(path.dirname(STARLING), 'loadtest');
const PORTS = ['8000', '8001', '10000', '10001', '6379'];

/** Fenced blocks with their language, their text, where they are, and what their comment says. */
function blocksOf(readme) {
  const pattern = /^```(\w+)\n([\s\S]*?)^```\n(?:<!-- test (\{.*\}) -->\n)?/gm;
  const found = [...readme.matchAll(pattern)].map(({ 1: language, 2: text, 3: directive, index }) => {
    const line = readme.slice(0, index).split('\n').length;
    return { language, text, line, ...JSON.parse(directive ?? '{}') };
  });
  const fences = readme.match(/^```/gm).length;
  assert.equal(found.length * 2, fences, 'every block must have a language and an end');
  return found;
}

/** The folder that stands for the clone: only what the README's blocks need of it. */
async function clone(t) {
  const folder = await mkdtemp(path.join(tmpdir(), 'starling-readme-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await mkdir(path.join(folder, 'target/release'), { recursive: true });
  const links = {
    'target/release/starling': STARLING,
    'target/release/loadtest': LOADTEST,
    node_modules: path.join(ROOT, 'tests/browser/node_modules'),
    proto: path.join(ROOT, 'proto'),
  };
  for (const [link, target] of Object.entries(links)) await symlink(target, path.join(folder, link));
  return folder;
}

test('every block of the README does what it says', async (t) => {
  const blocks = blocksOf(await readFile(path.join(ROOT, 'README.md'), 'utf8'));
  const folder = await clone(t);
  const ports = Object.fromEntries(await Promise.all(PORTS.map(async (port) => [port, await freePort()])));
  const environment = {
    ...process.env,
    PATH: `${path.join(folder, 'target/release')}:${process.env.PATH}`,
    STARLING_HTTP_SERVER_PORT: ports[8000],
    STARLING_GRPC_API_PORT: ports[10000],
  };
  const background = new Map();
  t.after(() => Promise.all([...background.values()].map((block) => block.end())));

  /** The text as the test runs it. */
  function adapted({ text, smaller = {} }) {
    let adapted = text;
    for (const [from, to] of Object.entries(smaller)) {
      assert.ok(adapted.includes(from), `the block has no ${from}`);
      adapted = adapted.replaceAll(from, to);
    }
    // Neither asks the environment for its ports.
    adapted = adapted.replaceAll('-- dev', '-- dev --port 8000 --grpc-port 10000');
    adapted = adapted.replace(/\bloadtest \w+(?= --)/g, '$& --url ws://127.0.0.1:8000 --grpc-url http://127.0.0.1:10000');
    adapted = adapted.replace(new RegExp(`(?<=[: ])(${PORTS.join('|')})\\b`, 'g'), (port) => ports[port]);
    return adapted.replaceAll('cargo run --release --', 'starling');
  }

  function start(program, flags, input) {
    // A group of its own, so that what a shell has started ends with it.
    const child = spawn(program, flags, { cwd: folder, env: environment, detached: true });
    const started = { output: '', ended: once(child, 'close') };
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (started.output += chunk));
    child.stdin.end(input);
    started.running = () => child.exitCode === null && child.signalCode === null;
    started.end = async () => {
      if (started.running()) process.kill(-child.pid, 'SIGTERM');
      await started.ended;
    };
    return started;
  }

  async function openPage(text) {
    // A module that imports the SDK by name, as a bundler would resolve it.
    const html = `<!doctype html><script src="/centrifuge.js"></script>
      <script type="importmap">{"imports": {"centrifuge": "data:text/javascript,export const Centrifuge = globalThis.Centrifuge"}}</script>
      <script type="module">${text}</script>`;
    const browser = await launch();
    const page = await browser.newPage();
    const opened = { output: '', running: () => true, end: () => browser.close() };
    page.on('console', async (message) => {
      const values = await Promise.all(message.args().map((value) => value.jsonValue()));
      opened.output += `${values.map((value) => JSON.stringify(value)).join(' ')}\n`;
    });
    page.on('pageerror', (error) => (opened.output += `${error}\n`));
    await page.goto(await application(t, html));
    return opened;
  }

  async function eventually(what, condition, output) {
    for (const deadline = Date.now() + PATIENCE; !(await condition()); await pause(20)) {
      if (Date.now() > deadline) throw new Error(`${what}:\n${output()}`);
    }
  }

  const shell = (text) => start('bash', ['-euo', 'pipefail', '-c', text]);

  async function run(block) {
    for (const name of block.ends ?? []) {
      await background.get(name).end();
      background.delete(name);
    }
    if (block.file) return writeFile(path.join(folder, block.file), block.text);

    const text = adapted(block);
    const name = block.background ?? block.browser;
    if (name) {
      const started = block.browser ? await openPage(text) : shell(text);
      background.set(name, started);
      const ready = async () => {
        if (!started.running()) throw new Error(`it has ended:\n${started.output}`);
        if (block.ready) return started.output.includes(block.ready);
        const check = shell(block.until);
        return (await check.ended)[0] === 0;
      };
      await eventually('it is not ready', ready, () => started.output);
      // Dev mode makes its key; the README says where to get it from.
      environment.API_KEY = /API key\s+(\S+)/.exec(started.output)?.[1] ?? environment.API_KEY;
      return;
    }

    const started = block.node ? start('node', ['--input-type=module', '-'], text) : shell(block.run ?? text);
    // A program of the block may hold a connection open; what counts is that its publication arrives.
    const done = block.node ? null : await started.ended;
    if (done) assert.ok((block.exit ?? [0]).includes(done[0]), `exit code ${done[0]}:\n${started.output}`);
    if (block.prints) assert.ok(started.output.includes(block.prints), `no "${block.prints}" in:\n${started.output}`);
    for (const where of block.at ?? []) {
      const { output } = background.get(where);
      const here = () => background.get(where).output.includes(block.arrives);
      await eventually(`"${block.arrives}" does not arrive at ${where}`, here, () => `${output}\n${started.output}`);
    }
    await started.end();
  }

  for (const block of blocks) {
    await t.test(`README.md:${block.line} ${block.text.split('\n')[0]}`, () => run(block));
  }
});
