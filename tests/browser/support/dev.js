// Runs `starling dev` and reads what it prints, as a user does.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { PATIENCE, STARLING } from './server.js';

/** Resolves with what was printed once the greeting is there; the program ends with the test. */
export async function startDev(t, ...flags) {
  const port = flags.includes('--port') ? [] : ['--port', '0'];
  const child = spawn(STARLING, ['dev', ...port, ...flags]);
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
  });
  const dev = { child, text: '', log: '' };
  child.stderr.on('data', (chunk) => (dev.log += chunk));
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no greeting:\n${dev.text}\n${dev.log}`)), PATIENCE);
    child.once('exit', (code) => reject(new Error(`exit code ${code}:\n${dev.text}\n${dev.log}`)));
    child.stdout.on('data', (chunk) => {
      dev.text += chunk;
      // The greeting's last words.
      if (dev.text.includes('ends this run')) {
        clearTimeout(timer);
        resolve();
      }
    });
  });
  const find = (pattern) => pattern.exec(dev.text)?.[1];
  dev.origin = find(/Demo page\s+(http:\/\/[^/\s]+)/);
  dev.url = find(/(ws:\/\/\S+)/);
  dev.grpc = find(/gRPC API\s+(\S+)/);
  dev.key = find(/API key\s+(\S+)/);
  dev.token = find(/^(eyJ\S+)$/m);
  return dev;
}
