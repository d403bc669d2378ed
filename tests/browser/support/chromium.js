// A real Chromium without a window, and pages for it from another origin than the server's.

import { access, mkdir } from 'node:fs/promises';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { ROOT } from './server.js';

const DIST = path.join(path.dirname(fileURLToPath(import.meta.resolve('centrifuge'))), '../dist');
export const ARTIFACTS = path.join(ROOT, 'test-artifacts');

/** Starts the browser that the machine has. */
export async function launch() {
  const places = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
  const executablePath = process.env.CHROMIUM ?? (await firstThere(places));
  // Its sandbox does not work for root, nor in most containers; the pages are our own.
  const options = { executablePath, headless: true, args: ['--no-sandbox', '--disable-gpu'] };
  await mkdir(ARTIFACTS, { recursive: true });
  return chromium.launch(options);
}

async function firstThere(places) {
  for (const place of places) if (await access(place).then(() => true, () => false)) return place;
  throw new Error(`no Chromium at ${places.join(', ')}; set CHROMIUM`);
}

/**
 * A web server of an application: `/` is `html`, `/centrifuge.js` and `/centrifuge.protobuf.js` are the SDK as browsers load
 * it. Returns its origin.
 */
export async function application(t, html = '<!doctype html><title>application</title>') {
  const server = createServer(async (request, response) => {
    const script = /^\/(centrifuge(?:\.protobuf)?\.js)$/.exec(request.url);
    response.setHeader('Content-Type', script ? 'text/javascript' : 'text/html; charset=utf-8');
    response.end(script ? await readFile(path.join(DIST, script[1])) : html);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}
